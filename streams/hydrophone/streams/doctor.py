"""Looks at everything a processor depends on and says what to do about it. Prints nothing; `cli/doctor.py` does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from hydrophone.detectors import Reference
from hydrophone.detectors.device import device_name, resolve_device
from hydrophone.schemas.errors import BrokerUnavailable, ConfigurationError, HydrophoneError
from hydrophone.streams import topics
from hydrophone.streams.budget import USUAL_PERMUTATIONS, alarm_rules
from hydrophone.streams.kafka.admin import TopicDescription, describe_topics
from hydrophone.streams.settings import Settings

__all__ = ["Finding", "examine"]


SAFE_RATIO: Final = 16
"""Reference rows per tested row from which a single reference's level is close to alpha (docs/detection.md)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` says what to do unless all is well."""

    what: str
    state: Literal["ok", "warning", "broken", "broker"]
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which a remedy makes sense; a check that cannot run says so."""
    yield _device(settings)
    yield from _references(settings)
    yield _sampling_key(settings)
    yield from _security(settings)
    yield from _broker(settings)


def _device(settings: Settings) -> Finding:
    try:
        return Finding("device", "ok", device_name(resolve_device(settings.device)))
    except ConfigurationError as error:
        return Finding("device", "broken", str(error), "set `device` to auto")


def _references(settings: Settings) -> Iterator[Finding]:
    if not settings.reference:
        yield Finding("reference", "ok", "none pinned: announced ones are followed")
        yield from _alarms(settings, USUAL_PERMUTATIONS, assumed=True)
    for folder in settings.reference:
        try:
            reference = Reference.load(folder, device="cpu")
        except ConfigurationError as error:
            yield Finding(f"reference {folder}", "broken", str(error), "fit it again: hydrophone reference fit")
            continue
        rows = reference.manifest.sizes.reference
        what = f"reference {folder}"
        detail = f"model {reference.manifest.model}, version {reference.id.version}, {rows} rows"
        if rows < SAFE_RATIO * settings.k:
            found = f"{detail}, fewer than {SAFE_RATIO} x k: on clean traffic this reference's own rate may be off"
            yield Finding(what, "warning", found, _more_rows(rows, settings.k))
        else:
            yield Finding(what, "ok", detail)
        yield from _alarms(settings, reference.manifest.permutations, assumed=False)


def _more_rows(rows: int, k: int) -> str:
    wanted = SAFE_RATIO * k
    return (
        f"lower `k` to {max(20, rows // SAFE_RATIO)}, or record {wanted * 3 // 2} rows and fit with "
        f"--max-reference-rows {wanted} (slower windows)"
    )


def _alarms(settings: Settings, permutations: int, *, assumed: bool) -> Iterator[Finding]:
    rules = alarm_rules(
        false_alarms_per_month=settings.false_alarms_per_month,
        window_ms=settings.window_ms,
        permutations=permutations,
    )
    given = f", with {permutations} permutations{' (assumed)' if assumed else ''}"
    for name, meaning in rules.lines().items():
        is_fine = name != "immediate" or rules.is_within_budget
        remedy = "" if is_fine else "fit with more --permutations, or use longer windows"
        detail = meaning + given if name == "immediate" else meaning
        yield Finding(f"{name} alarm", "ok" if is_fine else "warning", detail, remedy)
    yield Finding("class mix", "ok", "a benign change: in the score as `prior_shift`, never an alert")


def _sampling_key(settings: Settings) -> Finding:
    if settings.sampling_key is None:
        remedy = "set HYDROPHONE_SAMPLING_KEY to the same secret for all processors"
        return Finding("sampling key", "warning", "not set: an outsider could choose ids that dodge the sample", remedy)
    return Finding("sampling key", "ok", f"set, id {settings.sampling_key_id}")


def _security(settings: Settings) -> Iterator[Finding]:
    protocol = settings.security.protocol
    if settings.security.is_in_use and protocol != "SASL_PLAINTEXT":
        yield Finding("connection", "ok", protocol)
    elif "security.protocol" in settings.kafka:
        yield Finding("connection", "ok", f"{settings.kafka['security.protocol']}, by a property of yours")
    else:
        remedy = "set `security` (docs/security.md), unless nobody else is on the way"
        yield Finding("connection", "warning", f"{protocol}: frames and alerts can be read on the way", remedy)
    if settings.signatures == "require":
        yield Finding("signatures", "ok", f"required, by keys {', '.join(settings.signing_keys)}")
    else:
        remedy = "sign frames and set `signatures` to require (docs/security.md)"
        found = f"{settings.signatures}: whoever can write frames can fill any model's windows"
        yield Finding("signatures", "warning", found, remedy)


def _broker(settings: Settings) -> Iterator[Finding]:
    names = [topic.full_name(settings.topic_prefix) for topic in topics.TOPICS]
    try:
        found = describe_topics(settings.kafka_properties, names, timeout_s=10)
    except BrokerUnavailable as error:
        yield Finding("broker", "broker", str(error), "start it, or correct `bootstrap`")
        return
    except HydrophoneError as error:
        yield Finding("broker", "broken", str(error), "correct `bootstrap` and the Kafka properties")
        return
    yield Finding("broker", "ok", f"{settings.kafka_properties['bootstrap.servers']} answers")
    absent = [name for name in names if name not in found]
    if absent:
        yield Finding("topics", "broken", f"missing: {', '.join(absent)}", "run `hydrophone topics create`")
        return
    yield Finding("topics", "ok", f"all {len(names)} exist")
    checks: tuple[Callable[[Settings, dict[str, TopicDescription]], Finding], ...] = (_partitions, _retention, _times)
    for check in checks:
        yield check(settings, found)


def _partitions(settings: Settings, found: dict[str, TopicDescription]) -> Finding:
    counts = {t.name: found[t.full_name(settings.topic_prefix)].partitions for t in topics.TOPICS if t.is_copartitioned}
    detail = ", ".join(f"{name} {count}" for name, count in counts.items())
    if len(set(counts.values())) == 1:
        return Finding("partitions", "ok", detail)
    remedy = "give them as many partitions: delete the smaller one and create it anew"
    return Finding("partitions", "broken", detail, remedy)


def _retention(settings: Settings, found: dict[str, TopicDescription]) -> Finding:
    kept = {}
    for topic in (topics.ACTIVATIONS, topics.PARTIALS):
        kept[topic.name] = int(found[topic.full_name(settings.topic_prefix)].configs.get("retention.ms", "-1"))
        fault = topics.retention_fault(
            kept[topic.name],
            window_ms=settings.window_ms,
            lateness_ms=settings.lateness_ms,
            snapshot_ms=settings.snapshots_ms if topic is topics.ACTIVATIONS else 0,
            topic=topic,
        )
        if fault is not None:
            return Finding("retention", "broken", fault, "raise retention.ms of the topic")
    return Finding("retention", "ok", ", ".join(f"{ms} ms of {name}" for name, ms in kept.items()))


def _times(settings: Settings, found: dict[str, TopicDescription]) -> Finding:
    kind = found[topics.ACTIVATIONS.full_name(settings.topic_prefix)].configs.get("message.timestamp.type")
    if kind == "LogAppendTime":
        return Finding("timestamps", "ok", "the broker's (LogAppendTime)")
    remedy = "set message.timestamp.type=LogAppendTime on the activations topic"
    return Finding("timestamps", "warning", f"{kind}: a publisher's wrong clock vouches for itself", remedy)
