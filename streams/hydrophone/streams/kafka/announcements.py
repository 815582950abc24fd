"""Topics of announcements, of one partition each: what stands by now, and what comes. What it means is the reader's
business (`references.py`, `shard_plans.py`).
"""

import logging
from collections.abc import Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaError, TopicPartition

from hydrophone.streams.kafka.clients import Properties, reader
from hydrophone.streams.kafka.tables import TableReader

__all__ = ["Announcements", "standing"]

log = logging.getLogger("hydrophone")

PARTITION: Final = 0
TIMEOUT_S: Final = 10.0

Announcement = tuple[bytes, bytes | None]
"""Key and value; None is a tombstone."""


def standing(kafka: Properties, topic: str) -> dict[bytes, bytes]:
    """The last value of each key, in the order of announcement. Raises `BrokerUnavailable`."""
    tables = TableReader(kafka)
    try:
        return tables.read(topic, PARTITION)
    finally:
        tables.close()


class Announcements:
    """Everything from the beginning, as it is polled: what stands is given once more."""

    def __init__(self, kafka: Properties, topic: str) -> None:
        self._topic = topic
        self._consumer: Consumer = reader(kafka)
        self._consumer.assign([TopicPartition(topic, PARTITION, 0)])

    def poll(self) -> Iterator[Announcement]:
        """What was announced since."""
        for message in self._consumer.consume(100, timeout=0):
            error = message.error()
            if error is None:
                yield message.key() or b"", message.value()
            elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # documented constant
                log.warning("`%s`: %s", self._topic, error.str())

    def partitions_of(self, topic: str) -> int:
        """Of any topic of these brokers; 0 where there is none of this name."""
        return len(self._consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions)

    def close(self) -> None:
        self._consumer.close()
