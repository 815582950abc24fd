"""Every topic Hydrophone uses, declared once: name, key, value, partitions, cleanup, retention.

Nothing here talks to a broker; `streams/kafka/admin.py` does.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from hydrophone.schemas.errors import SettingsError

__all__ = [
    "ACTIVATIONS",
    "ALERTS",
    "CONTROL",
    "DEADLETTER",
    "DEFAULT_PARTITIONS",
    "DEFAULT_PREFIX",
    "EVENTS",
    "LATE",
    "PARTIALS",
    "REFERENCES",
    "SCORES",
    "SNAPSHOTS",
    "STATE",
    "TOPICS",
    "VERDICTS",
    "Topic",
    "minimum_retention_ms",
    "retention_fault",
    "topic_configs",
    "with_partitions",
]

DEFAULT_PREFIX: Final = "hydrophone."
CONTRACT_SUFFIX: Final = ".v1"

DEFAULT_PARTITIONS: Final = 12
"""Of `activations`: the most processors that can share the work. Twelve divides evenly among 2, 3, 4, 6 and 12."""

UNLIMITED_MS: Final = -1
"""What Kafka calls a retention without end."""

RETENTION_WINDOWS: Final = 3

HOUR_MS: Final = 60 * 60 * 1000
DAY_MS: Final = 24 * HOUR_MS

RECORD_BYTES: Final = 1_048_588
"""Kafka's own default, said aloud: a cluster set lower would refuse frames, which are split at 900,000 bytes."""

ENVELOPE_BYTES: Final = 2 * RECORD_BYTES
"""A record handed on whole, plus headers that say why, is larger than it was when it came in. Producers of such
records must raise their own `message.max.bytes` as well."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it is created; once it exists, partitions and replication are the operator's to change.

    `retention_ms` is None where compaction alone decides what goes.
    """

    name: str
    key: str
    value: str
    partitions: int
    cleanup: Literal["delete", "compact"]
    retention_ms: int | None
    configs: tuple[tuple[str, str], ...]
    purpose: str
    is_copartitioned: bool = False
    """As many partitions as `activations`, always: a key then lands on the same number in both, so the process that
    is assigned the one can read the other."""

    def full_name(self, prefix: str = DEFAULT_PREFIX) -> str:
        return f"{prefix}{self.name}{CONTRACT_SUFFIX}"


ACTIVATIONS: Final = Topic(
    name="activations",
    key="`model` or `model#shard`",
    value="activation frame (safetensors)",
    partitions=DEFAULT_PARTITIONS,
    cleanup="delete",
    retention_ms=DAY_MS,
    # The broker's time, so that what counts as far future does not depend on the clock that is under suspicion.
    configs=(("message.timestamp.type", "LogAppendTime"), ("max.message.bytes", str(RECORD_BYTES))),
    purpose="what the layers of a model did with live requests",
    is_copartitioned=True,
)

REFERENCES: Final = Topic(
    name="references",
    key="`model@version`",
    value="JSON pointer: model, version, URI, sha256, effective_from",
    partitions=1,  # read whole by every processor, in the order of announcement
    cleanup="compact",
    retention_ms=None,
    configs=(),
    purpose="which reference is in force, and from which event time",
)

SCORES: Final = Topic(
    name="scores",
    key="`model`",
    value="JSON `WindowScore`",
    partitions=6,
    cleanup="delete",
    retention_ms=30 * DAY_MS,
    configs=(),
    purpose="one test result per non-empty window, rejecting or not",
)

VERDICTS: Final = Topic(
    name="verdicts",
    key="`model`",
    value="JSON `FrameVerdicts`",
    partitions=DEFAULT_PARTITIONS,
    cleanup="delete",
    retention_ms=7 * DAY_MS,
    configs=(),
    purpose="what the per-sample detectors say of a frame's rows, as soon as it arrives",
)

ALERTS: Final = Topic(
    name="alerts",
    key="`model`",
    value="JSON `Alert`",
    partitions=3,
    cleanup="delete",
    retention_ms=90 * DAY_MS,
    configs=(),
    purpose="one record per window that raises an alert",
)

EVENTS: Final = Topic(
    name="events",
    key="`topic-partition`",
    value="JSON",
    partitions=3,
    cleanup="delete",
    retention_ms=30 * DAY_MS,
    configs=(),
    purpose="operational facts: a gap in the log, a model seen on two partitions, a reference that cannot be loaded",
)

LATE: Final = Topic(
    name="late",
    key="original key",
    value="original bytes; the header `rows` names the late rows",
    partitions=6,
    cleanup="delete",
    retention_ms=7 * DAY_MS,
    configs=(("max.message.bytes", str(ENVELOPE_BYTES)),),
    purpose="rows that came after their window was closed",
)

DEADLETTER: Final = Topic(
    name="deadletter",
    key="original key",
    value="original bytes; headers say reason, detail, topic, partition, offset, time and version",
    partitions=3,
    cleanup="delete",
    retention_ms=14 * DAY_MS,
    configs=(("max.message.bytes", str(ENVELOPE_BYTES)),),
    purpose="records that cannot be used, and why",
)

STATE: Final = Topic(
    name="state",
    key="`model`",
    value="JSON: model, reference sha256, end of the last window, sequential state",
    partitions=DEFAULT_PARTITIONS,
    cleanup="compact",
    retention_ms=None,
    # Read to its end whenever a partition is assigned. Kafka never compacts the segment it writes to, 1 GiB by default.
    configs=(("segment.bytes", str(16 * 1024 * 1024)), ("min.cleanable.dirty.ratio", "0.1")),
    purpose="what must outlive a window, per model",
    is_copartitioned=True,
)

PARTIALS: Final = Topic(
    name="partials",
    key="`model`; none for a watermark",
    value="what one partition has of a sharded model's window (safetensors), or how far its time is (JSON)",
    partitions=DEFAULT_PARTITIONS,
    cleanup="delete",
    retention_ms=DAY_MS,
    configs=(("max.message.bytes", str(ENVELOPE_BYTES)),),
    purpose="windows of sharded models on their way to being merged",
    is_copartitioned=True,  # so that who merges a model's windows reads and writes its memory on `state`
)

SNAPSHOTS: Final = Topic(
    name="snapshots",
    key="JSON: model, window's start, kind, number",
    value="an open window of hours: a head (JSON), frame ids (16 bytes each), sampled rows (safetensors)",
    partitions=DEFAULT_PARTITIONS,
    cleanup="compact",
    retention_ms=None,
    # Read to its end whenever a partition with long windows is assigned, as `state` is.
    configs=(
        ("max.message.bytes", str(ENVELOPE_BYTES)),
        ("segment.bytes", str(64 * 1024 * 1024)),
        ("min.cleanable.dirty.ratio", "0.1"),
    ),
    purpose="open windows as they were at an offset, so that a restart reads on from there",
    is_copartitioned=True,
)

CONTROL: Final = Topic(
    name="control",
    key="`shards/model@effective_from`",
    value="JSON `ShardPlan`",
    partitions=1,  # read whole by every processor, in the order of announcement
    cleanup="delete",
    retention_ms=UNLIMITED_MS,
    configs=(),
    purpose="what operators told the processors to do",
)

TOPICS: Final = (
    ACTIVATIONS,
    REFERENCES,
    SCORES,
    VERDICTS,
    ALERTS,
    EVENTS,
    LATE,
    DEADLETTER,
    STATE,
    PARTIALS,
    SNAPSHOTS,
    CONTROL,
)


def topic_configs(topic: Topic, *, replication_factor: int = 1) -> dict[str, str]:
    """The settings to create `topic` with.

    From three replicas on, a write needs two of them: one broker may be down for maintenance and another may then
    fail, and nothing acknowledged is lost.
    """
    retention = {} if topic.retention_ms is None else {"retention.ms": str(topic.retention_ms)}
    durability = {"min.insync.replicas": "2"} if replication_factor >= 3 else {}
    return {"cleanup.policy": topic.cleanup, **retention, **durability, **dict(topic.configs)}


def with_partitions(topics: Iterable[Topic], partitions: int) -> tuple[Topic, ...]:
    """The same topics with `partitions` for `activations` and all that follow it."""
    if partitions < 1:
        raise SettingsError(f"`partitions` must be at least 1; got {partitions}")
    return tuple(replace(topic, partitions=partitions) if topic.is_copartitioned else topic for topic in topics)


def minimum_retention_ms(window_ms: int, lateness_ms: int, snapshot_ms: int = 0) -> int:
    """The shortest retention of `activations`, and of `partials`, that leaves room for a restart.

    A restart reads again from the oldest open window, that is from up to `window + lateness` back; with snapshots, from
    the last but one of them at worst. Three of these leave two for a processor that was down for that long.
    """
    back_ms = min(window_ms, 2 * snapshot_ms) if snapshot_ms else window_ms
    return RETENTION_WINDOWS * (back_ms + lateness_ms)


def retention_fault(
    retention_ms: int, *, window_ms: int, lateness_ms: int, snapshot_ms: int = 0, topic: Topic = ACTIVATIONS
) -> str | None:
    """Why `retention_ms` is too short for these windows, with the remedy; None when it is long enough."""
    minimum_ms = minimum_retention_ms(window_ms, lateness_ms, snapshot_ms)
    if retention_ms == UNLIMITED_MS or retention_ms >= minimum_ms:
        return None
    back = "2 x snapshot_ms" if minimum_ms < minimum_retention_ms(window_ms, lateness_ms) else "window"
    return (
        f"`retention.ms` of `{topic.name}` must be at least {RETENTION_WINDOWS} x ({back} + lateness) = "
        f"{minimum_ms} ms; got {retention_ms} ms: raise it, or a restart may find its oldest open window deleted"
    )
