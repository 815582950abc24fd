"""Follows the `control` topic for plans of shards. What follows from a plan is in `streams/shards.py`."""

import logging
from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from hydrophone.schemas.operations import ShardPlan
from hydrophone.streams.kafka.announcements import Announcements, standing
from hydrophone.streams.kafka.clients import Properties
from hydrophone.streams.shards import ShardPlans

__all__ = ["ShardPlanFeed", "read_plans"]

log = logging.getLogger("hydrophone")

KEY: Final = b"shards/"


def read_plans(kafka: Properties, topic: str) -> ShardPlans:
    """Every plan announced so far. Raises `BrokerUnavailable`."""
    return ShardPlans(_plans(standing(kafka, topic).items()))


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
        self._announcements = Announcements(kafka, topic)

    def poll(self) -> None:
        """Take in what was announced since."""
        for plan in _plans(self._announcements.poll()):
            if plan not in self.plans:
                log.info("shards announced", extra=plan.model_dump())
            self.plans.announce(plan)

    def partitions_of(self, topic: str) -> int:
        """0 where there is no such topic."""
        return self._announcements.partitions_of(topic)

    def close(self) -> None:
        self._announcements.close()
