"""What the client hands over is handled once, in its order, whatever a rebalance does while it is being asked.

The consumer here hands out what it is told and runs a callback inside `consume`, as librdkafka does with rebalances;
how a real group behaves is the business of `tests/integration/test_groups.py` and the soak.
"""

from collections.abc import Callable
from typing import Any

from confluent_kafka import Message, TopicPartition

from hydrophone.streams.kafka.intake import Intake


class Rebalancing:
    """Gives out batches; before the one in turn it calls back."""

    def __init__(self, *batches: list[Message]) -> None:
        self.batches = list(batches)
        self.callback: Callable[[], None] = lambda: None
        self.paused: set[int] = set()

    def consume(self, _: int, timeout: float) -> list[Message]:  # the client's name for it
        self.callback()
        return self.batches.pop(0) if self.batches else []

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {place.partition for place in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {place.partition for place in places}


def message(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, value=b"")


def intake_of(consumer: Any) -> Intake:
    return Intake(consumer, batch=500)


def drained(intake: Intake) -> list[tuple[int | None, int | None]]:
    found = []
    while intake:
        one = intake.next()
        found.append((one.partition(), one.offset()))
    return found


def test_what_comes_with_a_revocation_is_not_lost() -> None:
    #   consume ┬ partition 1 is revoked
    #           └ records of partition 0
    consumer = Rebalancing([message(0, 5), message(1, 9)], [message(0, 6), message(0, 7)])
    intake = intake_of(consumer)
    intake.poll(0)
    consumer.callback = lambda: intake.drop([("t", 1)])

    intake.poll(0)

    assert drained(intake) == [(0, 5), (0, 6), (0, 7)]


def test_a_revocation_is_of_one_topics_partition() -> None:
    intake = intake_of(Rebalancing([message(0, 5), message(1, 9)]))
    intake.poll(0)

    intake.drop([("another", 1), ("t", 0)])

    assert drained(intake) == [(1, 9)]


def test_held_it_polls_on_and_new_partitions_are_held_too() -> None:
    consumer = Rebalancing()
    intake = intake_of(consumer)
    places = [TopicPartition("t", number) for number in range(2)]
    intake.hold(places[:1])
    intake.keep_held(places[1:])
    assert consumer.paused == {0, 1}
    assert not intake.is_idle

    intake.release(places)

    assert consumer.paused == set()
    assert intake.is_idle
