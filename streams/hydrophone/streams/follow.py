"""Follows a topic of events: typed, committed only, without a group. What to do with them is the caller's."""

import logging
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from hydrophone.schemas.errors import RecordRejected, TopicMissing
from hydrophone.schemas.event import Event
from hydrophone.schemas.headers import from_record
from hydrophone.streams.kafka.clients import Properties, reader
from hydrophone.streams.kafka.messages import headers_of
from hydrophone.streams.kafka.reading import bounds_of
from hydrophone.streams.kafka.trouble import DENIED, Trouble, denied, explained

__all__ = ["Follower"]

log = logging.getLogger("hydrophone")

E = TypeVar("E", bound=Event)

TIMEOUT_S: Final = 10.0


class Follower(Generic[E]):
    """Events from now on, or from the beginning. Raises `BrokerUnavailable` or `TopicMissing` when made.

    Where each partition stands is fixed when it is made, so that whatever is produced afterwards is seen.
    """

    def __init__(self, kafka: Properties, topic: str, event_class: type[E], *, from_beginning: bool = False) -> None:
        self._topic, self._event_class = topic, event_class
        trouble = Trouble()
        self._consumer: Consumer = reader({**kafka, "error_cb": trouble})
        try:
            self._assign(from_beginning=from_beginning)
        except KafkaException as error:
            self._consumer.poll(0)  # serves the callback
            self._consumer.close()
            raise explained(error.args[0], str(kafka.get("bootstrap.servers")), trouble) from None

    def _assign(self, *, from_beginning: bool) -> None:
        known = self._consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic]
        if known.error is not None:
            if known.error.name() in DENIED:
                raise denied(known.error, self._topic)
            raise TopicMissing(f"`{self._topic}`: {known.error.str()}; create it with `hydrophone topics create`")
        places = []
        for partition in known.partitions:
            low, high = bounds_of(self._consumer, TopicPartition(self._topic, partition))
            places.append(TopicPartition(self._topic, partition, low if from_beginning else high))
        self._consumer.assign(places)

    def poll(self, timeout_s: float = 0.0) -> list[E]:
        """What came, waiting at most `timeout_s`. A record that is no such event is logged and passed over."""
        events = []
        for message in self._consumer.consume(100, timeout=timeout_s):
            event = self._event(message)
            if event is not None:
                events.append(event)
        return events

    def _event(self, message: Message) -> E | None:
        error = message.error()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # documented constant
                log.warning("broker: %s", error.str())
            return None
        try:
            return from_record(self._event_class, message.value() or b"", headers_of(message))
        except RecordRejected as refusal:
            log.warning("passed over %s offset %s: %s", self._topic, message.offset(), refusal)
            return None

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
