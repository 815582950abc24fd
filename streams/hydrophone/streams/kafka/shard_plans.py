"""Follows the `control` topic for plans of shards. What follows from a plan is in `streams/shards.py`."""

import logging
from collections.abc import Iterable
from typing import Final

from confluent_kafka import Consumer, KafkaError, TopicPartition
from pydantic import ValidationError

from hydrophone.schemas.operations import ShardPlan
from hydrophone.streams.kafka.clients import Properties, reader
from hydrophone.streams.kafka.tables import TableReader
from hydrophone.streams.shards import ShardPlans

__all__ = ["ShardPlanFeed", "read_plans"]

log = logging.getLogger("hydrophone")

PARTITION: Final = 0
TIMEOUT_S: Final = 10.0
KEY: Final = b"shards/"


def read_plans(kafka: Properties, topic: str) -> ShardPlans:
    """Every plan announced so far. Raises `BrokerUnavailable`."""
    tables = TableReader(kafka)
    try:
        return ShardPlans(_plans(tables.read(topic, PARTITION).items()))
    finally:
        tables.close()


def _plans(records: Iterable[tuple[bytes, bytes | None]]) -> Iterable[ShardPlan]:
    """A plan cannot be withdrawn: windows may have been cut by it already."""
    for key, value in records:
        if not key.startswith(KEY) or value is None:
            continue
        try:
            yield ShardPlan.model_validate_json(value)
        except ValidationError as error:
            log.warning("a plan of shards cannot be read: %s", error, extra={"key": key.decode(errors="replace")})


class ShardPlanFeed:
    """Plans in the order of announcement; `plans` grows."""

    def __init__(self, kafka: Properties, topic: str) -> None:
        self.plans = read_plans(kafka, topic)
        self._consumer: Consumer = reader(kafka)
        self._consumer.assign([TopicPartition(topic, PARTITION, 0)])

    def poll(self) -> None:
        """Take in what was announced since."""
        for message in self._consumer.consume(100, timeout=0):
            error = message.error()
            if error is None:
                for plan in _plans([(message.key() or b"", message.value())]):
                    if plan not in self.plans:
                        log.info("shards announced", extra=plan.model_dump())
                    self.plans.announce(plan)
            elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # documented constant
                log.warning("control topic: %s", error.str())

    def partitions_of(self, topic: str) -> int:
        """0 where there is no such topic."""
        return len(self._consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions)

    def close(self) -> None:
        self._consumer.close()
