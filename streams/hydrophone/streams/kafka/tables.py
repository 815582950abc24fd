"""Reads small topics whole: the last value of each key, of everything that is committed. No group, no commit."""

import time
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from hydrophone.schemas.errors import BrokerUnavailable
from hydrophone.streams.acls import READER_GROUP
from hydrophone.streams.kafka.clients import Properties, reader
from hydrophone.streams.kafka.trouble import check_access

__all__ = ["TableReader"]

TIMEOUT_S: Final = 30.0
PAUSE_S: Final = 0.1
END_WAIT_MS: Final = 10
"""How long the broker looks out for more before it says that this was all; half a second unless told."""


class TableReader:
    """For compacted topics. One consumer reads what is committed, another knows how long the log is."""

    def __init__(self, kafka: Properties, *, timeout_s: float = TIMEOUT_S) -> None:
        quick = {**kafka, "fetch.wait.max.ms": END_WAIT_MS}
        self._consumer: Consumer = reader(quick)
        self._surveyor: Consumer = reader(quick, isolation="read_uncommitted")
        self._timeout_s = timeout_s

    def read(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """Key to last value, tombstones left out, of everything that was committed when this began.

        Raises `BrokerUnavailable` after half a minute without progress.
        """
        self._await_transactions(TopicPartition(topic, partition))
        self._consumer.assign([TopicPartition(topic, partition, 0)])
        table: dict[bytes, bytes | None] = {}
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            for message in self._consumer.consume(500, timeout=0.05):
                error = message.error()
                if error is None:
                    key = message.key() or b""
                    table.pop(key, None)  # the order is that of the last values, as compaction leaves them
                    table[key] = message.value()
                    deadline = time.monotonic() + self._timeout_s
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # the client's documented constant
                    return {key: value for key, value in table.items() if value is not None}
                elif error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    check_access(error, topic=topic, group=READER_GROUP)
                    raise KafkaException(error)
        raise BrokerUnavailable(f"`{topic}` [{partition}] could not be read to its end in {self._timeout_s:g} s")

    def _await_transactions(self, place: TopicPartition) -> None:
        """A reader of committed records stops before the oldest open transaction, whoever's it is. What others have
        committed behind it would be missed, so it is waited for; not for what is written meanwhile."""
        deadline = time.monotonic() + self._timeout_s
        end = self._end(self._surveyor, place, deadline)
        while (readable := self._end(self._consumer, place, deadline)) < end:
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"a transaction on `{place.topic}` [{place.partition}] is open at offset {readable}, and what is "
                    f"committed behind it, to {end}, cannot be read: the broker ends it at its producer's "
                    "`transaction.timeout.ms`; `kafka-transactions.sh find-hanging` and `abort` end it by hand"
                )
            time.sleep(PAUSE_S)

    def _end(self, consumer: Consumer, place: TopicPartition, deadline: float) -> int:
        """Of committed records, or of all: as the consumer reads them. 0 where there is none: the reading says why."""
        while True:
            try:
                return consumer.get_watermark_offsets(place, self._timeout_s)[1]
            except KafkaException as error:
                fault = error.args[0]
                if fault.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):  # noqa: SLF001
                    return 0
                check_access(fault, topic=place.topic, group=READER_GROUP)
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"`{place.topic}` [{place.partition}] has no end yet: {fault.str()}"
                    ) from error
            time.sleep(PAUSE_S)  # a partition that was just made has no leader for a moment

    def close(self) -> None:
        self._consumer.close()
        self._surveyor.close()
