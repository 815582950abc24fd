"""A partition's state from what is committed: offset, metadata and the models' memories.

What follows from it, and when, is the runtime's business.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition
from pydantic import ValidationError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_exponential,
)

from hydrophone.schemas.errors import ConfigurationError, Retryable
from hydrophone.schemas.operations import ModelState, OperationalEvent, operational_event
from hydrophone.streams.checkpoint import Checkpoint, MergeCheckpoint
from hydrophone.streams.kafka.tables import TableReader
from hydrophone.streams.merging import recover_merge
from hydrophone.streams.ownership import Key, OwnedPartition
from hydrophone.streams.processor import StreamRules, recover
from hydrophone.streams.snapshots import SnapshotBook, SnapshotRules, TakenUp, taken_up

__all__ = ["Recovered", "Recovery", "TableTopics"]

log = logging.getLogger("hydrophone")

T = TypeVar("T")

TIMEOUT_S: Final = 5.0
PATIENCE_S: Final = 15.0
"""How long a log may look shorter than it was read before it passes for another of the same name."""


class Recovered(NamedTuple):
    """The partition, where to read on, and what an operator must know: a gap in the log, snapshots that are lost."""

    partition: OwnedPartition
    place: TopicPartition
    events: Sequence[OperationalEvent]


class TableTopics(NamedTuple):
    """Compacted topics that a partition's state is read from, by their full names."""

    state: str
    snapshots: str


class _Committed(NamedTuple):
    offset: int
    text: str | None


class _Overtaken(Retryable):
    """What was read belongs to a later commit than the one it was read for."""


class _Shorter(Retryable):
    """The log ends before what was read of it."""


class Recovery:
    """Reads committed offsets, then the `state` partition, in that order: offsets first, because what a transaction
    wrote to `state` is readable once its offsets are. A model's memory that the first stage handed on is read when the
    second needs it first: by then every partition's time has passed the windows before."""

    def __init__(
        self,
        consumer: Consumer,
        tables: TableReader,
        *,
        partials: str,
        tables_of: TableTopics,
        snapshots: SnapshotRules,
        windows: StreamRules,
        stopping: threading.Event,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._consumer, self._tables = consumer, tables
        self._partials, self._topics, self._snapshots, self._windows = partials, tables_of, snapshots, windows
        self._window_ms = windows.time.window_ms
        self._stopping = stopping
        self._reached: dict[Key, int] = {}
        self._shorter_since: dict[Key, float] = {}
        self._patience_s = patience_s

    def note(self, left: OwnedPartition) -> None:
        """This partition goes to another; should it come back shorter than it was, it is not the same."""
        self._reached[left.key] = max(left.state.position, self._reached.get(left.key, 0))

    def patiently(self, what: str, attempt: Callable[[], T], *, limit_s: float = math.inf) -> T:
        """Again until it works, unless the process is to stop or the time is over: then what went wrong is raised."""
        attempts = Retrying(
            retry=retry_if_exception_type((KafkaException, Retryable)),
            wait=wait_exponential(0.2, max=5),
            stop=stop_any(stop_when_event_set(self._stopping), stop_after_delay(limit_s)),
            before_sleep=lambda call: log.warning(
                "%s cannot be recovered yet: %s", what, call.outcome.exception() if call.outcome else None
            ),
            reraise=True,
        )
        return attempts(attempt)

    def recover(self, key: Key, before: OwnedPartition | None, now_ms: int) -> Recovered:
        """`before` is what was held of this partition until now. Raises `KafkaException` or `Retryable` where asking
        again may help, `ConfigurationError` where what is committed is not ours."""
        topic, number = key
        committed = self._committed(key)
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, number), TIMEOUT_S)
        offset = low if committed.offset < 0 else committed.offset
        reached = max(offset, self._reached.get(key, 0), before.state.position if before is not None else 0)
        self._check_end(key, reached, high)
        if topic == self._partials:
            owned, found = self._merging(key, max(offset, low), committed), TakenUp(offset, {}, {})
        else:
            owned, found = self._windows_of(key, offset, low, committed)
        owned.active_ms = owned.book.round_ms = now_ms
        events = [self._lost(key, found)] if found.lost else []
        events += [self._gap(key, found.offset, low)] if found.offset < low else []
        owned.is_dirty = bool(events)  # so that they are told once
        state = owned.state
        log.info(
            "partition taken up",
            extra={
                "topic": topic,
                "partition": number,
                "offset": state.position,
                "position": state.replay_until,
                "snapshots": len(found.windows),
            },
        )
        return Recovered(owned, TopicPartition(topic, number, state.position), events)

    def _check_end(self, key: Key, reached: int, high: int) -> None:
        """A broker that has just come back, or has just become leader, may show an older end for moments. Raises
        `_Shorter` until it has had time enough, then `ConfigurationError`."""
        if reached <= high:
            self._shorter_since.pop(key, None)
            return
        topic, number = key
        short = f"`{topic}` [{number}] was read up to offset {reached} and ends at {high}"
        since = self._shorter_since.setdefault(key, time.monotonic())
        if time.monotonic() - since < self._patience_s:
            raise _Shorter(short)
        raise ConfigurationError(
            f"{short}: the topic was deleted and created anew; choose another `--group`, or reset this one"
        )

    def _merging(self, key: Key, offset: int, committed: "_Committed") -> OwnedPartition:
        checkpoint = MergeCheckpoint.decode(committed.text, window_ms=self._window_ms)
        return OwnedPartition(recover_merge(*key, offset, checkpoint), {})

    def _windows_of(self, key: Key, offset: int, low: int, committed: "_Committed") -> tuple[OwnedPartition, TakenUp]:
        topic, number = key
        checkpoint = Checkpoint.decode(committed.text, window_ms=self._window_ms)
        read = partial(self._tables.read, self._topics.snapshots, number)
        found = taken_up(checkpoint, offset, read, self._snapshots, self._windows.contract)
        if found.lost and self._committed(key) != committed:
            raise _Overtaken(f"`{topic}` [{number}]: another processor committed while its snapshots were read")
        state = recover(topic, number, max(found.offset, low), checkpoint, found.windows)
        return OwnedPartition(state, self.models(number), book=SnapshotBook(found.written)), found

    def _committed(self, key: Key) -> "_Committed":
        committed = self._consumer.committed([TopicPartition(*key)], TIMEOUT_S)[0]
        if committed.error is not None:
            raise KafkaException(committed.error)
        return _Committed(committed.offset, committed.metadata)

    def _gap(self, key: Key, offset: int, low: int) -> OperationalEvent:
        detail = f"offsets {offset} to {low - 1} were deleted before they were processed; raise the topic's retention"
        return operational_event("log_gap", *key, detail, first_offset=offset, last_offset=low - 1)

    def _lost(self, key: Key, found: TakenUp) -> OperationalEvent:
        detail = f"snapshots that were counted on cannot be used, and windows are read again from the log: {found.lost}"
        return operational_event("snapshot_lost", *key, detail, first_offset=found.offset)

    def models(self, number: int, tables: TableReader | None = None) -> dict[str, ModelState]:
        """The memories of the models of this partition, as last committed; read with other `tables` if given."""
        rows = (tables or self._tables).read(self._topics.state, number)
        try:
            states = [ModelState.model_validate_json(value) for value in rows.values()]
        except ValidationError as error:
            raise ConfigurationError(
                f"`{self._topics.state}` [{number}] holds what no processor of this version wrote: "
                f"{error.errors()[0]['msg']}; run the version that wrote it, or write a tombstone for the key"
            ) from None
        return {state.model: state for state in states}
