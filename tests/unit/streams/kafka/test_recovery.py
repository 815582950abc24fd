"""What is taken up again is what was left. The consumer here says what it is told; real brokers: `tests/fault`."""

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaException, TopicPartition

from hydrophone.schemas.errors import ConfigurationError, Retryable
from hydrophone.schemas.identity import FramePriorities
from hydrophone.streams.checkpoint import MergeCheckpoint
from hydrophone.streams.kafka.recovery import Recovered, Recovery, TableTopics
from hydrophone.streams.merging import MergeState
from hydrophone.streams.processor import StreamRules
from hydrophone.streams.snapshots import SnapshotRules
from hydrophone.streams.watermark import TimeRules


class Committed:
    """One partition with what is committed of it."""

    def __init__(self, offset: int, metadata: str = "", *, high: int = 100) -> None:
        self.offset, self.metadata, self.high = offset, metadata, high

    def committed(self, asked: list[TopicPartition], _: float) -> list[TopicPartition]:
        return [TopicPartition(asked[0].topic, asked[0].partition, self.offset, self.metadata)]

    def get_watermark_offsets(self, _: TopicPartition, __: float) -> tuple[int, int]:
        return 0, self.high


class NoTables:
    def read(self, _: str, __: int) -> dict[bytes, bytes]:
        return {}


def recovery_of(consumer: Any, *, patience_s: float = 0) -> Recovery:
    tables: Any = NoTables()
    return Recovery(
        consumer,
        tables,
        partials="p",
        tables_of=TableTopics("s", "snapshots"),
        snapshots=SnapshotRules(0, 20, b"k", "id"),
        windows=StreamRules(TimeRules(10, 0, 0, 0), lambda *_: None, FramePriorities(b"k")),
        stopping=threading.Event(),
        patience_s=patience_s,
    )


def test_a_partition_that_comes_back_shorter_is_another_of_the_same_name() -> None:
    log = Committed(-1, high=6)
    recovery = recovery_of(log)
    owned = recovery.recover(("t", 0), None, 0).partition
    owned.state.position = 6
    recovery.note(owned)
    assert recovery.recover(("t", 0), None, 0).place.offset == 0

    log.high = 5
    with pytest.raises(ConfigurationError, match="was read up to offset 6 and ends at 5"):
        recovery.recover(("t", 0), None, 0)
    assert recovery.recover(("t", 1), None, 0).place.offset == 0, "of one partition nothing follows for another"


def test_an_end_that_is_older_for_moments_is_waited_out() -> None:
    log = Committed(8, high=5)
    recovery = recovery_of(log, patience_s=30)
    with pytest.raises(Retryable, match="was read up to offset 8 and ends at 5"):
        recovery.recover(("t", 0), None, 0)

    def attempt() -> Recovered:
        log.high += 1
        return recovery.recover(("t", 0), None, 0)

    assert recovery.patiently("it", attempt).place.offset == 8
    assert log.high == 8


def test_either_topic_has_its_own_kind_of_state() -> None:
    text = MergeCheckpoint(10, 7, 20, 2, {0: 20, 1: 30}).encode()

    found = recovery_of(Committed(4, text)).recover(("p", 3), None, 0)

    assert found.place.offset == 4
    state = found.partition.state
    assert isinstance(state, MergeState)
    assert (state.position, state.replay_until, state.closed_ms, state.watermarks) == (4, 7, 20, {0: 20, 1: 30})
    with pytest.raises(ConfigurationError, match="another program"):
        recovery_of(Committed(4, text)).recover(("t", 3), None, 0)


def test_what_may_help_to_ask_again_is_asked_again() -> None:
    answers = [KafkaException("not yet"), 7]

    def attempt() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert recovery_of(Committed(0)).patiently("it", attempt) == 7
