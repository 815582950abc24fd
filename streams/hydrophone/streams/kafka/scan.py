"""Reads a range of one partition again, whole or not at all. What is made of it is decided in `replay.py`."""

from collections.abc import Iterator
from typing import Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from hydrophone.schemas.errors import BrokerUnavailable, ConfigurationError, TopicMissing
from hydrophone.streams.kafka.clients import Properties, reader
from hydrophone.streams.kafka.messages import headers_of
from hydrophone.streams.kafka.reading import bounds_of
from hydrophone.streams.record import Record

__all__ = ["LogScanner"]

TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.05
SILENCES: Final = 600
"""So many polls in a row without an answer are taken for a broker that is gone."""


class LogScanner:
    """One consumer outside any group. Use it as a context manager."""

    def __init__(self, kafka: Properties, topic: str, partition: int) -> None:
        self._kafka, self._topic, self._partition = kafka, topic, partition
        self._consumer: Consumer = reader(kafka)

    def records(self, first: int, end: int) -> Iterator[Record]:
        """Records of the offsets `[first, end)`. Raises `ConfigurationError` when the log no longer holds them all, or
        does not reach so far; and `BrokerUnavailable`."""
        self._require(first, end)
        if first >= end:
            return
        self._consumer.assign([TopicPartition(self._topic, self._partition, first)])
        silent = 0
        while silent < SILENCES:
            messages = self._consumer.consume(500, timeout=POLL_S)  # that long, unless so many come
            silent = 0 if messages else silent + 1
            for message in messages:
                offset = message.offset()
                if _is_end(message) or offset is None or offset >= end:
                    self._require(first, end)  # what was deleted meanwhile was skipped in silence
                    return
                yield _record(self._topic, self._partition, offset, message)
                if offset == end - 1:
                    self._require(first, end)
                    return
        raise BrokerUnavailable(f"`{self._topic}` [{self._partition}] could not be read up to offset {end}")

    def _require(self, first: int, end: int) -> None:
        low, high = self._bounds()
        if first < low:
            raise ConfigurationError(
                f"`{self._topic}` [{self._partition}] no longer holds offsets {first} to {min(low, end) - 1}, and the "
                "window's rows were among them; replay from the score's evidence (without `--topic-scan`), or raise "
                "the topic's retention"
            )
        if end > high:
            raise ConfigurationError(
                f"`{self._topic}` [{self._partition}] ends at offset {high} and the score's window closed at {end}: "
                "this is not the log it was made from; look at `--bootstrap` and the score's `source`"
            )

    def _bounds(self) -> tuple[int, int]:
        place = TopicPartition(self._topic, self._partition)
        try:
            known = self._consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic]
            if known.error is not None or self._partition not in known.partitions:
                raise TopicMissing(
                    f"`{self._topic}` [{self._partition}] is not on this broker; look at `--bootstrap` and the score's "
                    "`source`"
                )
            return bounds_of(self._consumer, place)
        except KafkaException as error:
            where = self._kafka.get("bootstrap.servers")
            raise BrokerUnavailable(f"no answer from the broker at `{where}`: {error.args[0].str()}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()


def _is_end(message: Message) -> bool:
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # documented constant
        return True
    raise KafkaException(error)


def _record(topic: str, partition: int, offset: int, message: Message) -> Record:
    return Record(topic, partition, offset, message.timestamp()[1], message.key(), message.value(), headers_of(message))
