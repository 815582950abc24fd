"""Reads small topics whole: the last value of each key, up to the last stable offset. No group, no commit."""

import time
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from hydrophone.schemas.errors import BrokerUnavailable
from hydrophone.streams.acls import READER_GROUP
from hydrophone.streams.kafka.clients import Properties, reader
from hydrophone.streams.kafka.trouble import check_access

__all__ = ["TableReader"]

TIMEOUT_S: Final = 30.0


class TableReader:
    """One consumer, assigned by hand, for compacted topics."""

    def __init__(self, kafka: Properties) -> None:
        self._consumer: Consumer = reader(kafka)

    def read(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """Key to last value, tombstones left out. Raises `BrokerUnavailable` after half a minute without progress."""
        self._consumer.assign([TopicPartition(topic, partition, 0)])
        table: dict[bytes, bytes | None] = {}
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            for message in self._consumer.consume(500, timeout=0.05):
                error = message.error()
                if error is None:
                    key = message.key() or b""
                    table.pop(key, None)  # the order is that of the last values, as compaction leaves them
                    table[key] = message.value()
                    deadline = time.monotonic() + TIMEOUT_S
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # the client's documented constant
                    return {key: value for key, value in table.items() if value is not None}
                elif error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    check_access(error, topic=topic, group=READER_GROUP)
                    raise KafkaException(error)
        raise BrokerUnavailable(f"`{topic}` [{partition}] could not be read to its end in {TIMEOUT_S:.0f} s")

    def close(self) -> None:
        self._consumer.close()
