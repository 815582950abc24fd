"""What the shell does between two polls. The client here hands out what it is told and runs callbacks inside `consume`,
as librdkafka does with rebalances; how real groups and brokers behave: `tests/integration` and `tests/fault`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from tests.support.frames import frame_id

from hydrophone.schemas.frame import Frame
from hydrophone.schemas.identity import FramePriorities
from hydrophone.streams.arrivals import ArrivalTasks
from hydrophone.streams.checkpoint import Checkpoint
from hydrophone.streams.kafka.reading import Reads
from hydrophone.streams.kafka.recovery import TableTopics
from hydrophone.streams.merging import MergeRules
from hydrophone.streams.outputs import Output, OutputTopics
from hydrophone.streams.ownership import Stages
from hydrophone.streams.processor import StreamRules
from hydrophone.streams.runtime import Cadence, Runtime
from hydrophone.streams.snapshots import SnapshotRules
from hydrophone.streams.telemetry import Telemetry
from hydrophone.streams.watermark import TimeRules

EVERY_TURN = Cadence(position_commit_ms=0)
RULES = StreamRules(TimeRules(1_000, 100, 0, 0), lambda *_: None, FramePriorities(b"k"))


class Client:
    """One partition's log, `t` [0], of one group: what is fetched next, and what is committed."""

    def __init__(self, log: list[Message]) -> None:
        self.log, self.committed_offset, self.committed_text, self.next = log, -1, "", 0
        self.during: list[Callable[[], list[Message]]] = []
        self.joined = 0
        self.is_silent = False
        self.on_assign: Callable[[Any, list[TopicPartition]], None]
        self.on_revoke: Callable[[Any, list[TopicPartition]], None]

    def subscribe(self, _: list[str], **callbacks: Any) -> None:
        self.on_assign, self.on_revoke = callbacks["on_assign"], callbacks["on_revoke"]
        self.joined += 1

    def unsubscribe(self) -> None: ...

    def consume(self, _: int, timeout: float) -> list[Message]:  # the client's name for it
        before = self.during.pop(0)() if self.during else []
        came, self.next = self.log[self.next :], len(self.log)
        return [*before, *came]

    def seek(self, place: TopicPartition) -> None:
        self.next = place.offset

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.next = max(places[0].offset, 0)

    def incremental_unassign(self, _: list[TopicPartition]) -> None: ...

    def pause(self, _: list[TopicPartition]) -> None: ...

    resume = pause

    def committed(self, asked: list[TopicPartition], _: float) -> list[TopicPartition]:
        if self.is_silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return [TopicPartition(asked[0].topic, 0, self.committed_offset, self.committed_text)]

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        return 0, len(self.log)


class Committing:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.outputs: list[Output] = []

    def deliver(self, outputs: list[Output], offsets: list[TopicPartition], _: object) -> None:
        self.outputs += outputs
        for place in offsets:
            self.client.committed_offset, self.client.committed_text = place.offset, place.metadata or ""


class NoTables:
    def read(self, _: str, __: int) -> dict[bytes, bytes]:
        return {}


class Task:
    """A window's test that lasts until it is said to be over."""

    is_done = False

    def done(self) -> bool:
        return self.is_done


class SlowTests:
    is_full = False

    def __init__(self) -> None:
        self.task = Task()
        self.begun = 0

    def begin(self, *_: object) -> Task:
        self.begun += 1
        return self.task

    def wait(self, *_: object) -> None: ...

    def forget(self) -> None: ...

    def __len__(self) -> int:
        return 0 if self.task.is_done else self.begun


def message(offset: int, time_ms: int = 500) -> Message:
    times = np.full(2, time_ms)
    frame = Frame("m", {"fc": np.ones((2, 1), np.float32)}, event_time_ms=times, frame_id=frame_id(offset))
    return Message(topic="t", partition=0, offset=offset, key=b"m", value=frame.encode(), timestamp=(2, time_ms + 100))


def runtime_of(client: Any, *, delivery: Any = None, tests: Any = None, cadence: Cadence = EVERY_TURN) -> Runtime:
    nothing: Any = None
    tables: Any = NoTables()
    return Runtime(
        consumer=client,
        delivery=Committing(client) if delivery is None else delivery,
        tables=tables,
        glances=tables,
        references=None,
        shards=None,
        reads=Reads("t", "p", 1),
        tables_of=TableTopics("s", "snapshots"),
        snapshots=SnapshotRules(0, 20, b"k", "id"),
        outputs=OutputTopics("x."),
        stages=Stages(RULES, MergeRules(1_000, b"k")),
        judge=nothing,
        tests=SlowTests() if tests is None else tests,
        arrivals=ArrivalTasks(nothing),
        clock=lambda: 1_000,
        telemetry=Telemetry(),
        cadence=cadence,
    )


def test_records_of_a_partition_that_goes_and_comes_back_in_one_poll_are_read_in_their_order() -> None:
    #   consume ┬ records 0 to 2, handed over by an earlier assignment of the partition
    #           ├ revoked, assigned again: reading goes on at 0, what is committed
    #           └ records 0 to 4
    client = Client([message(offset) for offset in range(5)])
    runtime = runtime_of(client)
    runtime.start()
    place = [TopicPartition("t", 0)]

    def come() -> list[Message]:
        client.on_assign(client, place)
        return []

    def go_and_come_back() -> list[Message]:
        stale = client.log[2:]
        client.on_revoke(client, place)
        client.on_assign(client, place)
        return stale

    client.during = [come, go_and_come_back]
    for _ in range(4):
        runtime.turn()

    found = Checkpoint.decode(client.committed_text, window_ms=1_000)
    assert found is not None
    assert found.position == 5
    (window,) = runtime._partitions["t", 0].state.windows.values()
    assert (window.first_offset, window.seen, window.duplicate) == (0, 10, 0)


def test_member_that_nobody_answers_ends_its_callback_and_joins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    #   consume ┬ assigned: committed offsets are asked for, and the coordinator is at another generation already
    #           ├ left and joined again
    #           └ assigned: records 0 to 4
    monkeypatch.setattr("hydrophone.streams.runtime.ANSWER_S", 0.2)
    client = Client([message(offset) for offset in range(5)])
    runtime = runtime_of(client)
    runtime.start()
    client.is_silent = True

    def come() -> list[Message]:
        client.on_assign(client, [TopicPartition("t", 0)])
        return []

    def come_again() -> list[Message]:
        client.is_silent = False
        return come()

    client.during = [come, come_again]
    runtime.turn()
    assert client.joined == 2
    assert not runtime._partitions
    for _ in range(3):
        runtime.turn()

    (window,) = runtime._partitions["t", 0].state.windows.values()
    assert (window.first_offset, window.seen, window.duplicate) == (0, 10, 0)


def test_what_waits_behind_a_slow_test_is_bounded_in_bytes_and_nothing_of_it_is_lost() -> None:
    #   record 0   a window        │ record 1 closes it: its test lasts     │ records 2 to 101 are late, and wait
    log = [message(0), message(1, 5_000), *(message(offset) for offset in range(2, 102))]
    client, tests = Client(log), SlowTests()
    delivery = Committing(client)
    limit = 10 * len(log[2].value() or b"")
    runtime = runtime_of(
        client, delivery=delivery, tests=tests, cadence=Cadence(position_commit_ms=0, commit_ms=0, waiting_bytes=limit)
    )
    runtime._performer._conclude = lambda *_: []  # type: ignore[method-assign,assignment]
    runtime.start()
    client.during = [lambda: client.on_assign(client, [TopicPartition("t", 0)]) or []]  # type: ignore[func-returns-value]

    for _ in range(20):
        runtime.turn()
    owned = runtime._partitions["t", 0]
    assert tests.begun == 1
    assert 2 < owned.state.position < 15, "reading waits"
    assert limit <= owned.ledger.size < 2 * limit
    assert not delivery.outputs

    tests.task.is_done = True
    for _ in range(40):
        runtime.turn()
    late = [dict(output.headers)["hydrophone_offset"] for output in delivery.outputs]
    assert late == [b"%d" % offset for offset in range(2, 102)]
    assert owned.ledger.size == 0
