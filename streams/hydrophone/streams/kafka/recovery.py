"""A partition's state from what is committed: offset, metadata and the models' memories.

What follows from it, and when, is the runtime's business.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition
from pydantic import ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_any, stop_when_event_set, wait_exponential

from hydrophone.schemas.errors import ConfigurationError, Retryable
from hydrophone.schemas.operations import ModelState, OperationalEvent, operational_event
from hydrophone.streams.checkpoint import Checkpoint, MergeCheckpoint
from hydrophone.streams.kafka.tables import TableReader
from hydrophone.streams.merging import MergeState, recover_merge
from hydrophone.streams.ownership import Key, OwnedPartition
from hydrophone.streams.processor import PartitionState, recover

__all__ = ["Recovered", "Recovery"]

log = logging.getLogger("hydrophone")

T = TypeVar("T")

TIMEOUT_S: Final = 10.0


class Recovered(NamedTuple):
    """The partition, where to read on, and the gap in the log if there is one."""

    partition: OwnedPartition
    place: TopicPartition
    gap: OperationalEvent | None


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
        state_topic: str,
        window_ms: int,
        stopping: threading.Event,
    ) -> None:
        self._consumer, self._tables = consumer, tables
        self._partials, self._state_topic, self._window_ms = partials, state_topic, window_ms
        self._stopping = stopping
        self._reached: dict[Key, int] = {}

    def note(self, left: OwnedPartition) -> None:
        """This partition goes to another; should it come back shorter than it was, it is not the same."""
        self._reached[left.key] = max(left.state.position, self._reached.get(left.key, 0))

    def patiently(self, what: str, attempt: Callable[[], T]) -> T:
        """Again until it works, unless the process is to stop."""
        attempts = Retrying(
            retry=retry_if_exception_type((KafkaException, Retryable)),
            wait=wait_exponential(0.2, max=5),
            stop=stop_any(stop_when_event_set(self._stopping)),
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
        offset, text = self._committed(key)
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, number), TIMEOUT_S)
        offset = low if offset < 0 else offset
        reached = max(offset, self._reached.get(key, 0), before.state.position if before is not None else 0)
        if reached > high:
            raise ConfigurationError(
                f"`{topic}` [{number}] was read up to offset {reached} and ends at {high}: the topic was deleted "
                "and created anew; choose another `--group`, or reset this one"
            )
        gap = self._gap(key, offset, low) if offset < low else None
        offset = max(offset, low)
        state = self._state(key, offset, text)
        models = {} if isinstance(state, MergeState) else self.models(number)
        owned = OwnedPartition(state, models, active_ms=now_ms)
        owned.is_dirty = gap is not None  # so that the gap is told once
        return Recovered(owned, TopicPartition(topic, number, offset), gap)

    def _state(self, key: Key, offset: int, text: str | None) -> PartitionState | MergeState:
        topic, number = key
        if topic == self._partials:
            return recover_merge(topic, number, offset, MergeCheckpoint.decode(text, window_ms=self._window_ms))
        return recover(topic, number, offset, Checkpoint.decode(text, window_ms=self._window_ms))

    def _committed(self, key: Key) -> tuple[int, str | None]:
        committed = self._consumer.committed([TopicPartition(*key)], TIMEOUT_S)[0]
        if committed.error is not None:
            raise KafkaException(committed.error)
        return committed.offset, committed.metadata

    def _gap(self, key: Key, offset: int, low: int) -> OperationalEvent:
        detail = f"offsets {offset} to {low - 1} were deleted before they were processed; raise the topic's retention"
        return operational_event("log_gap", *key, detail, first_offset=offset, last_offset=low - 1)

    def models(self, number: int) -> dict[str, ModelState]:
        """The memories of the models of this partition, as last committed."""
        rows = self._tables.read(self._state_topic, number)
        try:
            states = [ModelState.model_validate_json(value) for value in rows.values()]
        except ValidationError as error:
            raise ConfigurationError(
                f"`{self._state_topic}` [{number}] holds what no processor of this version wrote: "
                f"{error.errors()[0]['msg']}; run the version that wrote it, or write a tombstone for the key"
            ) from None
        return {state.model: state for state in states}
