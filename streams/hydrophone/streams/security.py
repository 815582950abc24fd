"""How clients prove who they are and whom they trust: one model, in librdkafka's words and in aiokafka's.

Rendering is pure but for reading the certificates that aiokafka wants loaded. Tokens are fetched in `oidc.py`; who may
do what on the broker is in `acls.py`.
"""

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)

from hydrophone.schemas.errors import SettingsError

__all__ = ["Security", "aiokafka", "fault_of", "librdkafka", "ssl_context"]

SCRAM_OR_PLAIN: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN")
TLS_FIELDS: Final[Sequence[str]] = ("ca", "certificate", "key", "key_password")
PASSWORD_FIELDS: Final[Sequence[str]] = ("username", "password")
TOKEN_FIELDS: Final[Sequence[str]] = ("token_endpoint", "client_id", "client_secret")
SASL_FIELDS: Final[Sequence[str]] = ("mechanism", *PASSWORD_FIELDS, *TOKEN_FIELDS, "scope")

OWNED: Final = frozenset(
    {
        "security.protocol",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.certificate.pem",
        "ssl.key.location",
        "ssl.key.pem",
        "ssl.key.password",
        "ssl.keystore.location",
        "ssl.keystore.password",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
        "https.ca.location",
    }
)
OWNED_PREFIX: Final = "sasl.oauthbearer."


class Security(BaseModel):
    """The connection's security. `Security.of` raises `SettingsError`; the constructor pydantic's `ValidationError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = Field(
        "PLAINTEXT", description="Kafka's `security.protocol`; SSL is TLS, with a certificate of our own it is mTLS"
    )
    allow_plaintext: bool = Field(
        False, description="send passwords or tokens over a connection that anybody on the way can read"
    )
    ca: Path | None = Field(None, description="PEM file of the authorities to trust; the system's by default")
    certificate: Path | None = Field(None, description="PEM file of our own certificate and its chain (mTLS)")
    key: Path | None = Field(None, description="PEM file of the certificate's private key")
    key_password: SecretStr | None = Field(None, description="opens the private key")
    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER"] | None = Field(
        None, description="how SASL proves who we are"
    )
    username: str | None = Field(None, description="for SCRAM and PLAIN")
    password: SecretStr | None = Field(None, description="for SCRAM and PLAIN")
    token_endpoint: str | None = Field(None, description="OAUTHBEARER: where client credentials buy a token (https)")
    client_id: str | None = Field(None, description="OAUTHBEARER: who asks for the token")
    client_secret: SecretStr | None = Field(None, description="OAUTHBEARER: the secret of `client_id`")
    scope: str | None = Field(None, description="OAUTHBEARER: what the token is to be good for")

    @model_validator(mode="wrap")
    @classmethod
    def _all_at_once(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        faults = _faults(values) if isinstance(values, Mapping) else []
        try:
            built = handler(values)
        except ValidationError as error:
            raise ValueError("; ".join([*(fault_of(**detail) for detail in error.errors()), *faults])) from None
        if faults:
            raise ValueError("; ".join(faults))
        return built

    @classmethod
    def of(cls, values: "Security | Mapping[str, Any]") -> "Security":
        """Raises `SettingsError` that names every fault, and no value of any."""
        if isinstance(values, cls):
            return values
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError("; ".join(fault_of(**detail) for detail in error.errors())) from None

    @property
    def has_tls(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def is_in_use(self) -> bool:
        return self.protocol != "PLAINTEXT"


def librdkafka(security: Security, kafka: Mapping[str, Any]) -> dict[str, Any]:
    """Client properties: `kafka` and what `security` comes to. Raises `SettingsError` where both speak of one thing.

    Neither wins: of two passwords one is out of date, and which one only a person knows.
    """
    if not security.is_in_use:
        return dict(kafka)
    doubled = sorted(name for name in kafka if name in OWNED or name.startswith(OWNED_PREFIX))
    if doubled:
        raise SettingsError(
            f"`security` is set and so is {', '.join(f'`{name}`' for name in doubled)} in `kafka`: say it in one place"
        )
    return {**kafka, **{name: value for name, value in _properties(security).items() if value is not None}}


def _properties(security: Security) -> dict[str, str | None]:
    ours: dict[str, str | None] = {"security.protocol": security.protocol}
    if security.has_tls:
        ours |= {
            "ssl.ca.location": _text(security.ca),
            "ssl.certificate.location": _text(security.certificate),
            "ssl.key.location": _text(security.key),
            "ssl.key.password": _secret(security.key_password),
            "ssl.endpoint.identification.algorithm": "https",  # the certificate must be of the host we asked for
            "enable.ssl.certificate.verification": "true",
        }
    if security.mechanism == "OAUTHBEARER":
        ours |= {
            "sasl.mechanism": security.mechanism,
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": security.token_endpoint,
            "sasl.oauthbearer.client.id": security.client_id,
            "sasl.oauthbearer.client.secret": _secret(security.client_secret),
            "sasl.oauthbearer.scope": security.scope,
            "https.ca.location": _text(security.ca),
        }
    elif security.mechanism is not None:
        ours |= {
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": _secret(security.password),
        }
    return ours


def aiokafka(security: Security) -> dict[str, Any]:
    """Keyword arguments of aiokafka's clients. Raises `SettingsError` when a certificate or key cannot be loaded.

    With OAUTHBEARER aiokafka must be installed, and the event loop that uses the client must run.
    """
    found: dict[str, Any] = {"security_protocol": security.protocol}
    if security.has_tls:
        found["ssl_context"] = ssl_context(security)
    if security.mechanism == "OAUTHBEARER":
        from hydrophone.streams.oidc import token_provider  # noqa: PLC0415  # aiokafka is not installed everywhere

        found |= {"sasl_mechanism": security.mechanism, "sasl_oauth_token_provider": token_provider(security)}
    elif security.mechanism is not None:
        found |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": _secret(security.password),
        }
    return found


def ssl_context(security: Security) -> ssl.SSLContext:
    """Trusts `ca` alone, or the system's authorities; checks the host's name; shows our certificate if there is one."""
    try:
        context = ssl.create_default_context(cafile=_text(security.ca))
        if security.certificate is not None:
            context.load_cert_chain(security.certificate, security.key, lambda: _secret(security.key_password) or "")
    except (OSError, ValueError) as error:  # a wrong key password, too: `ssl.SSLError` is an `OSError`
        raise SettingsError(
            f"`security.ca`, `certificate` or `key` cannot be loaded: {error}; they must be readable PEM files that "
            "belong together, and `key_password` must open the key"
        ) from None
    return context


def fault_of(*, loc: tuple[int | str, ...], msg: str, **_: Any) -> str:
    """One of pydantic's findings in our words; never the value, which may be a secret."""
    return f"`{'.'.join(map(str, loc)) or 'settings'}`: {msg.removeprefix('Value error, ')}"


def _faults(values: Mapping[str, Any]) -> list[str]:
    """What is wrong between fields that may each be right; a field that is empty counts as not given."""
    given = {name for name in (*TLS_FIELDS, *SASL_FIELDS) if values.get(name)}
    protocol, mechanism = str(values.get("protocol") or "PLAINTEXT"), values.get("mechanism")
    faults = []
    if ("certificate" in given) != ("key" in given):
        faults.append("`certificate` and `key` belong together; got one of them: give both, or neither")
    if "key_password" in given and "key" not in given:
        faults.append("`key_password` opens a `key`; got none: give `key` and `certificate`")
    if "SSL" not in protocol and (unused := [name for name in TLS_FIELDS if name in given]):
        faults.append(f"{_listed(unused)} need TLS; got `protocol` {protocol}: say SSL or SASL_SSL")
    if not protocol.startswith("SASL") and (unused := [name for name in SASL_FIELDS if name in given]):
        faults.append(f"{_listed(unused)} need SASL; got `protocol` {protocol}: say SASL_SSL")
    if protocol.startswith("SASL"):
        faults += _sasl_faults(given, mechanism)
    is_plain_allowed = values.get("allow_plaintext") not in (None, False, "", "false", "False", "0", 0)
    if protocol == "SASL_PLAINTEXT" and not is_plain_allowed:
        faults.append("`protocol` SASL_PLAINTEXT sends secrets in the clear: say SASL_SSL, or `allow_plaintext = true`")
    return faults + _endpoint_faults(values.get("token_endpoint"), is_plain_allowed=is_plain_allowed)


def _sasl_faults(given: set[str], mechanism: object) -> list[str]:
    if not mechanism:
        return [f"`mechanism` must be given with SASL: {', '.join(SCRAM_OR_PLAIN)} or OAUTHBEARER"]
    is_token = mechanism == "OAUTHBEARER"
    wanted = TOKEN_FIELDS if is_token else PASSWORD_FIELDS
    unwanted = PASSWORD_FIELDS if is_token else (*TOKEN_FIELDS, "scope")
    faults = []
    if absent := [name for name in wanted if name not in given]:
        faults.append(f"`mechanism` {mechanism!s:.20} needs {_listed(absent)}")
    if surplus := [name for name in unwanted if name in given]:
        faults.append(f"`mechanism` {mechanism!s:.20} has no use for {_listed(surplus)}: take them out")
    return faults


def _endpoint_faults(endpoint: object, *, is_plain_allowed: bool) -> list[str]:
    if not endpoint:
        return []
    try:
        parts = urlsplit(str(endpoint))
        has_user = parts.username is not None or parts.password is not None
    except ValueError:
        return ["`token_endpoint` must be a URL"]
    if has_user:  # it would be printed with the settings
        return ["`token_endpoint` must not carry a user or a password: use `client_id` and `client_secret`"]
    if parts.scheme != "https" and not (parts.scheme == "http" and is_plain_allowed):
        return ["`token_endpoint` must begin with https://, for `client_secret` goes there"]
    return []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _secret(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
