"""Effects and judgements as records to produce: topic, key, value, headers. Pure; nothing is sent here."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from hydrophone.schemas.event import Event
from hydrophone.schemas.headers import DEAD_LETTER_PREFIX, dead_letter_headers, to_record
from hydrophone.schemas.operations import DeadLetter, ModelState, OperationalEvent, ReferencePointer, ShardPlan
from hydrophone.schemas.verdict import FrameVerdicts
from hydrophone.streams import topics
from hydrophone.streams.effects import DeadLettered, RowsLate, SummaryClosed, TimePassed
from hydrophone.streams.judge import Judgement
from hydrophone.streams.partials import encode_marker, encode_summary
from hydrophone.streams.record import Record
from hydrophone.streams.snapshots import Wire

__all__ = ["Output", "OutputTopics"]


def _version() -> str:
    try:
        return version("hydrophone")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"


VERSION: Final = _version()


LARGEST_RECORD: Final = topics.ENVELOPE_BYTES - 65_536
"""Bytes of key, value and headers that are surely taken, framing included."""

KEY_KEPT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Output:
    """One record to produce. `partition` None leaves the choice to the partitioner.

    A `memory` says that the others were told: where they cannot be sent as one, it is sent once they have arrived.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    partition: int | None = None
    is_memory: bool = False

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


@dataclass(frozen=True, slots=True)
class OutputTopics:
    """Where outputs go, for one topic prefix."""

    prefix: str = topics.DEFAULT_PREFIX

    def judgement(self, judgement: Judgement, partition: int, previous: ModelState | None) -> list[Output]:
        """Score, alert if any, and the model's state where it changed; the state on its model's own partition."""
        score, alert, state = judgement.score, judgement.alert, judgement.state
        traceparent = score.trace.traceparent if score.trace else None
        outputs = [self._event(topics.SCORES, score, score.model, score.window.end_ms, traceparent)]
        if alert is not None:
            outputs.append(self._event(topics.ALERTS, alert, alert.model, alert.window.end_ms, traceparent))
        if state is not None and state != previous:
            row = self.row(topics.STATE, state, state.model)
            outputs.append(replace(row, partition=partition, is_memory=True))
        return outputs

    def verdicts(self, event: FrameVerdicts, time_ms: int) -> Output:
        return self._event(topics.VERDICTS, event, event.model, time_ms, None)

    def late(self, effect: RowsLate) -> Output:
        record = effect.record
        place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        ours = [("rows", json.dumps(effect.rows).encode())]
        ours += [(f"{DEAD_LETTER_PREFIX}{name}", str(value).encode()) for name, value in place.items()]
        return _whole_or_place(topics.LATE.full_name(self.prefix), record, ours)

    def dead_letter(self, effect: DeadLettered) -> Output:
        record = effect.record
        letter = DeadLetter(
            reason=effect.reason,
            detail=effect.detail,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp_ms,
            version=VERSION,
        )
        return _whole_or_place(topics.DEADLETTER.full_name(self.prefix), record, dead_letter_headers(letter, None))

    def summary(self, effect: SummaryClosed) -> list[Output]:
        """All of a model's windows to one partition: who merges them keeps the model's memory."""
        name = topics.PARTIALS.full_name(self.prefix)
        return [Output(name, key, value, headers) for key, value, headers in encode_summary(effect.summary)]

    def markers(self, effect: TimePassed, partitions: int) -> list[Output]:
        """To every partition of `partials`, of which there are as many as of `activations`."""
        name = topics.PARTIALS.full_name(self.prefix)
        key, value, headers = encode_marker(effect, partitions)
        return [Output(name, key, value, headers, number) for number in range(partitions)]

    def snapshots(self, wires: Iterable[Wire], partition: int) -> list[Output]:
        name = topics.SNAPSHOTS.full_name(self.prefix)
        return [Output(name, wire.key, wire.value, [], partition) for wire in wires]

    def row(self, topic: topics.Topic, value: ReferencePointer | ShardPlan | ModelState, key: str) -> Output:
        """What stands under its key until the next one: no event, so nothing of when or by whom."""
        headers: list[tuple[str, bytes | None]] = [
            ("ce_type", value.event_type.encode()),
            ("content-type", b"application/json"),
        ]
        return Output(topic.full_name(self.prefix), key.encode(), value.model_dump_json().encode(), headers)

    def event(self, event: OperationalEvent, time_ms: int) -> Output:
        return self._event(topics.EVENTS, event, f"{event.topic}-{event.partition}", time_ms, None)

    def _event(self, topic: topics.Topic, event: Event, key: str, time_ms: int, traceparent: str | None) -> Output:
        record = to_record(event, key=key, time_ms=time_ms, traceparent=traceparent)
        return Output(topic.full_name(self.prefix), record.key, record.value, list(record.headers))


def _whole_or_place(topic: str, record: Record, ours: Sequence[tuple[str, bytes | None]]) -> Output:
    """The record as it came, with our headers, its place among them, after its own.

    One that was small only because it was compressed can be larger than any topic takes: then its place must do.
    """
    own = [*record.headers, *ours]
    size = sum(len(name) + len(value or b"") for name, value in own) + len(record.key or b"") + len(record.value or b"")
    if size <= LARGEST_RECORD:
        return Output(topic, record.key, record.value, own)
    headers = [*ours, ("omitted-bytes", str(len(record.value or b"")).encode())]
    return Output(topic, (record.key or b"")[:KEY_KEPT], None, headers)
