"""One frozen `Settings`, built once: defaults, then `hydrophone.toml`, then `HYDROPHONE_*`, then flags.

Detectors never see it: plain arguments are passed down.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as SourceError

from hydrophone.schemas.errors import SettingsError
from hydrophone.schemas.event import sha256_of
from hydrophone.schemas.signature import KEY_ID_PATTERN, MIN_SECRET_BYTES, Verify, verifier
from hydrophone.streams.security import Security, fault_of, librdkafka
from hydrophone.streams.topics import DEFAULT_PREFIX
from hydrophone.streams.watermark import TimeRules

__all__ = ["PUBLIC_SAMPLING_KEY", "Settings", "load_settings"]

PUBLIC_SAMPLING_KEY: Final = b"hydrophone: no sampling key was set"
SECRET_PROPERTY: Final = re.compile(
    r"password|passphrase|secret|token|oauthbearer\.config|key\.pem|credential", re.IGNORECASE
)
MASK: Final = "********"
SNAPSHOT_MS: Final = 5 * 60_000
LONG_WINDOW_MS: Final = 15 * 60_000
USER_INFO: Final = re.compile(r"//[^/@\s]*@")


KeyId = Annotated[str, Field(pattern=KEY_ID_PATTERN)]
SigningSecret = Annotated[SecretStr, Field(min_length=MIN_SECRET_BYTES)]


class Settings(BaseSettings):
    """Every setting of the processor and the command line, with its meaning."""

    model_config = SettingsConfigDict(
        env_prefix="HYDROPHONE_",
        env_nested_delimiter="__",
        toml_file="hydrophone.toml",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    bootstrap: str | None = Field(None, description="Kafka brokers, host:port[,host:port]")
    group: str = Field("hydrophone", min_length=1, description="consumer group; processors of one group share the work")
    instance_id: str | None = Field(
        None, description="name of this processor, stable over restarts: its partitions wait for it"
    )
    group_protocol: Literal["auto", "classic", "consumer"] = Field(
        "auto", description="consumer is KIP-848, for Kafka 4; auto takes it where the broker says that it has it"
    )
    stage: Literal["all", "windows", "merge"] = Field(
        "all", description="of sharded models: windows reads requests, merge puts their windows together, all does both"
    )
    topic_prefix: str = Field(DEFAULT_PREFIX, pattern=r"^[A-Za-z0-9._-]*$", description="before every topic's name")
    guarantee: Literal["exactly-once", "at-least-once"] = Field(
        "exactly-once", description="at-least-once is for brokers without transactions"
    )
    kafka: dict[str, str] = Field(
        default_factory=dict, repr=False, description="librdkafka properties, passed through untouched"
    )
    security: Security = Field(
        default_factory=Security, description="TLS, certificates, SASL; rendered for every client (docs/security.md)"
    )
    signatures: Literal["off", "accept", "require"] = Field(
        "off", description="frames' signatures: not looked at; checked where there is one; wanted of every frame"
    )
    signing_keys: dict[KeyId, SigningSecret] = Field(
        default_factory=dict, description="key id to secret; several at once while keys are rotated"
    )

    window_ms: int = Field(60_000, ge=1, description="length of a window")
    lateness_ms: int = Field(10_000, ge=0, description="how long a row may be on its way and still count")
    future_skew_ms: int = Field(5_000, ge=0, description="how far a clock may run ahead of the broker's")
    expected_delay_ms: int = Field(2_000, ge=0, description="how long a row usually is on its way")
    idle_ms: int = Field(5_000, ge=0, description="silence after which the clock closes a partition's windows")
    snapshot_ms: int | None = Field(
        None,
        ge=0,
        description="how often windows that stay open are written down, so that a restart reads on from there; 0 is "
        "never; unless given, every 5 minutes where windows last 15 or more",
    )
    k: int = Field(512, ge=20, le=65_536, description="most rows of a window that are tested")
    least_k: int | None = Field(
        None, ge=20, description="fewest rows to test where tests cannot keep pace; a quarter of k unless given"
    )
    test_threads: int = Field(
        1, ge=1, le=64, description="windows tested at a time; one test uses all of torch's threads"
    )
    tests_under_way: int = Field(8, ge=1, le=1_000, description="windows under test before reading waits")
    verdicts: Literal["all", "suspicious", "none"] = Field(
        "suspicious",
        description="rows told where the reference has per-sample detectors; none: judge no row on arrival",
    )
    verdict_threads: int = Field(2, ge=1, le=64, description="batches of rows judged at a time")
    sampling_key: SecretStr | None = Field(
        None, description="deployment secret that decides which rows are sampled; the same for all processors"
    )
    false_alarms_per_month: Annotated[float, Field(gt=0)] = Field(
        1.0, description="budget of alerts per model on clean traffic; every alarm rule follows from it"
    )

    reference: tuple[Path, ...] = Field((), description="reference folders that are pinned")
    evidence: str | None = Field("hydrophone-evidence", description="where rejecting windows' rows go (any fsspec URI)")
    detection_rate: bool = Field(False, description="add the layer-wise method's detection rate to every score")
    device: str = Field("auto", description="auto, cpu or cuda[:i]")

    metrics_port: int | None = Field(None, ge=0, le=65_535, description="serve Prometheus metrics on loopback")
    otlp_endpoint: str | None = Field(None, description="send traces and metrics there (OTLP over HTTP)")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto is text on a terminal, else JSON")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic-settings calls by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @model_validator(mode="wrap")
    @classmethod
    def _all_at_once(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Rules between settings are looked at even where single settings are at fault."""
        faults = _time_faults(values) + _signature_faults(values)
        try:
            built = handler(values)
        except ValidationError as error:
            raise SettingsError("; ".join([*(fault_of(**detail) for detail in error.errors()), *faults])) from None
        if faults:
            raise SettingsError("; ".join(faults))
        return built

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return self.redacted().items()

    @property
    def time_rules(self) -> TimeRules:
        return TimeRules(
            window_ms=self.window_ms,
            lateness_ms=self.lateness_ms,
            future_skew_ms=self.future_skew_ms,
            expected_delay_ms=self.expected_delay_ms,
            idle_ms=self.idle_ms,
        )

    @property
    def snapshots_ms(self) -> int:
        """0: none are taken. A snapshot must be committed with the offset that counts on it."""
        if self.guarantee == "at-least-once":
            return 0
        if self.snapshot_ms is None:
            return SNAPSHOT_MS if self.window_ms >= LONG_WINDOW_MS else 0
        return self.snapshot_ms

    @property
    def fewest_rows(self) -> int:
        """Rows of a window that are tested under the heaviest load."""
        return min(self.k, self.least_k or max(20, self.k // 4))

    @property
    def kafka_properties(self) -> dict[str, str]:
        """For every client. Raises `SettingsError` without `bootstrap`."""
        bootstrap = self.bootstrap or self.kafka.get("bootstrap.servers")
        if not bootstrap:
            raise SettingsError("`bootstrap` must name a broker; give `--bootstrap HOST:PORT` or HYDROPHONE_BOOTSTRAP")
        return librdkafka(self.security, self.kafka) | {"bootstrap.servers": bootstrap}

    @property
    def signature_check(self) -> Verify | None:
        """What every frame from the topic must pass before it is decoded; None where signatures are off."""
        if self.signatures == "off":
            return None
        secrets = {key_id: secret.get_secret_value().encode() for key_id, secret in self.signing_keys.items()}
        return verifier(secrets, is_required=self.signatures == "require")

    @property
    def sampling_key_bytes(self) -> bytes:
        """At most 64 bytes, whatever the length of the secret."""
        if self.sampling_key is None:
            return PUBLIC_SAMPLING_KEY
        return hashlib.blake2b(self.sampling_key.get_secret_value().encode(), digest_size=64).digest()

    @property
    def sampling_key_id(self) -> str:
        """Names the key in scores without giving it away."""
        return hashlib.blake2b(self.sampling_key_bytes, digest_size=4, person=b"hydrophone-id").hexdigest()

    def redacted(self) -> dict[str, Any]:
        """Everything, with secrets masked: safe to print and to log."""
        values = self.model_dump(mode="json")
        values["kafka"] = {k: MASK if SECRET_PROPERTY.search(k) else v for k, v in self.kafka.items()}
        return {k: USER_INFO.sub(f"//{MASK}@", v) if isinstance(v, str) else v for k, v in values.items()}

    @property
    def sha256(self) -> str:
        """Names the settings that shape a score, for whoever compares two."""
        shaping = ("window_ms", "lateness_ms", "future_skew_ms", "k", "false_alarms_per_month", "detection_rate")
        values = self.model_dump(mode="json")
        return sha256_of({name: values[name] for name in shaping} | {"sampling_key_id": self.sampling_key_id})


def load_settings(**flags: Any) -> Settings:
    """Settings with the flags that were given (None: not given). Raises one `SettingsError` naming every fault."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except (SourceError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the environment or `hydrophone.toml` cannot be read: {error}") from None


def _time_faults(values: Any) -> list[str]:
    """What is wrong between times that are each plausible; single settings are pydantic's."""
    times = {}
    for name in ("window_ms", "lateness_ms", "future_skew_ms", "expected_delay_ms"):
        try:
            times[name] = max(0, int(values[name]))
        except (KeyError, TypeError, ValueError):
            continue
    try:
        TimeRules(**times | {"window_ms": max(1, times.get("window_ms", 1))})
    except SettingsError as error:
        return [str(error)]
    return []


def _signature_faults(values: Any) -> list[str]:
    if not isinstance(values, Mapping):
        return []
    keys, mode = values.get("signing_keys"), values.get("signatures", "off")
    if mode in ("accept", "require") and not keys:
        return [f"`signing_keys` must hold a key with `signatures` {mode}; got none: give HYDROPHONE_SIGNING_KEYS"]
    if mode == "off" and keys:
        return ["`signing_keys` are given and `signatures` is off: nothing would be checked; say accept or require"]
    return []
