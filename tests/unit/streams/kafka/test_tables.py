"""What a table's reader does about a broker that cannot say yet; real brokers: `tests/integration/test_tables.py`."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from hydrophone.schemas.errors import BrokerUnavailable
from hydrophone.streams.kafka.tables import TableReader


class Ending:
    """Says where a partition ends, in turn."""

    def __init__(self, *answers: KafkaError | int) -> None:
        self.answers = list(answers)

    def get_watermark_offsets(self, _: TopicPartition, __: float) -> tuple[int, int]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, KafkaError):
            raise KafkaException(answer)
        return 0, answer


def reader(surveyor: Ending, committed: Ending, timeout_s: float) -> TableReader:
    made = TableReader({"bootstrap.servers": "127.0.0.1:1"}, timeout_s=timeout_s)
    consumers: Any = (surveyor, committed)
    made._surveyor, made._consumer = consumers
    return made


NO_LEADER = KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)


def test_a_partition_that_was_just_made_is_asked_again() -> None:
    reader(Ending(NO_LEADER, NO_LEADER, 3), Ending(NO_LEADER, 2, 3), 5)._await_transactions(TopicPartition("t", 0))


def test_what_never_has_a_leader_is_named() -> None:
    with pytest.raises(BrokerUnavailable, match=r"`t` \[0\] has no end yet"):
        reader(Ending(NO_LEADER), Ending(3), 0.2)._await_transactions(TopicPartition("t", 0))
