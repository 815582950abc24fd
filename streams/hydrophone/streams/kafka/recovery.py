"""A partition's state from what is committed: offset, metadata and the models' memories.

What follows from it, and when, is the runtime's business.
"""

from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition
from pydantic import ValidationError

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.operations import ModelState, OperationalEvent, operational_event
from hydrophone.streams.checkpoint import Checkpoint
from hydrophone.streams.kafka.tables import TableReader
from hydrophone.streams.ownership import OwnedPartition
from hydrophone.streams.processor import recover

__all__ = ["Recovered", "Recovery"]

TIMEOUT_S: Final = 10.0


class Recovered(NamedTuple):
    """The partition, where to read on, and the gap in the log if there is one."""

    partition: OwnedPartition
    place: TopicPartition
    gap: OperationalEvent | None


class Recovery:
    """Reads committed offsets, then the `state` partition, in that order: offsets first, because what a transaction
    wrote to `state` is readable once its offsets are."""

    def __init__(
        self, consumer: Consumer, tables: TableReader, *, topic: str, state_topic: str, window_ms: int
    ) -> None:
        self._consumer, self._tables = consumer, tables
        self._topic, self._state_topic, self._window_ms = topic, state_topic, window_ms

    def recover(self, number: int, before: OwnedPartition | None, now_ms: int) -> Recovered:
        """`before` is what was held of this partition until now. Raises `KafkaException` or `Retryable` where asking
        again may help, `ConfigurationError` where what is committed is not ours."""
        offset, checkpoint = self._committed(number)
        low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), TIMEOUT_S)
        offset = low if offset < 0 else offset
        reached = offset if before is None else max(offset, before.state.position)
        if reached > high:
            raise ConfigurationError(
                f"`{self._topic}` [{number}] was read up to offset {reached} and ends at {high}: the topic was deleted "
                "and created anew; choose another `--group`, or reset this one"
            )
        gap = self._gap(number, offset, low) if offset < low else None
        offset = max(offset, low)
        state = recover(self._topic, number, offset, checkpoint)
        owned = OwnedPartition(state, self._models(number), active_ms=now_ms)
        owned.is_dirty = gap is not None  # so that the gap is told once
        return Recovered(owned, TopicPartition(self._topic, number, offset), gap)

    def _committed(self, number: int) -> tuple[int, Checkpoint | None]:
        committed = self._consumer.committed([TopicPartition(self._topic, number)], TIMEOUT_S)[0]
        if committed.error is not None:
            raise KafkaException(committed.error)
        return committed.offset, Checkpoint.decode(committed.metadata, window_ms=self._window_ms)

    def _gap(self, number: int, offset: int, low: int) -> OperationalEvent:
        detail = f"offsets {offset} to {low - 1} were deleted before they were processed; raise the topic's retention"
        return operational_event("log_gap", self._topic, number, detail, first_offset=offset, last_offset=low - 1)

    def _models(self, number: int) -> dict[str, ModelState]:
        rows = self._tables.read(self._state_topic, number)
        try:
            states = [ModelState.model_validate_json(value) for value in rows.values()]
        except ValidationError as error:
            raise ConfigurationError(
                f"`{self._state_topic}` [{number}] holds what no processor of this version wrote: "
                f"{error.errors()[0]['msg']}; run the version that wrote it, or write a tombstone for the key"
            ) from None
        return {state.model: state for state in states}
