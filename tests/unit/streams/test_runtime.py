"""What the shell does between two polls. The client here hands out what it is told and runs callbacks inside `consume`,
as librdkafka does with rebalances; how real groups and brokers behave: `tests/integration` and `tests/fault`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from confluent_kafka import Message, TopicPartition
from tests.support.frames import frame_id

from hydrophone.schemas.frame import Frame
from hydrophone.schemas.identity import FramePriorities
from hydrophone.streams.checkpoint import Checkpoint
from hydrophone.streams.kafka.reading import Reads
from hydrophone.streams.kafka.recovery import TableTopics
from hydrophone.streams.merging import MergeRules
from hydrophone.streams.outputs import OutputTopics
from hydrophone.streams.ownership import Stages
from hydrophone.streams.processor import StreamRules
from hydrophone.streams.runtime import Cadence, Runtime
from hydrophone.streams.snapshots import SnapshotRules
from hydrophone.streams.telemetry import Telemetry
from hydrophone.streams.watermark import TimeRules

RULES = StreamRules(TimeRules(1_000, 100, 0, 0), lambda *_: None, FramePriorities(b"k"))


class Client:
    """One partition's log, `t` [0], of one group: what is fetched next, and what is committed."""

    def __init__(self, log: list[Message]) -> None:
        self.log, self.committed_offset, self.committed_text, self.next = log, -1, "", 0
        self.during: list[Callable[[], list[Message]]] = []
        self.on_assign: Callable[[Any, list[TopicPartition]], None]
        self.on_revoke: Callable[[Any, list[TopicPartition]], None]

    def subscribe(self, _: list[str], **callbacks: Any) -> None:
        self.on_assign, self.on_revoke = callbacks["on_assign"], callbacks["on_revoke"]

    def consume(self, _: int, timeout: float) -> list[Message]:  # the client's name for it
        before = self.during.pop(0)() if self.during else []
        came, self.next = self.log[self.next :], len(self.log)
        return [*before, *came]

    def seek(self, place: TopicPartition) -> None:
        self.next = place.offset

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.next = places[0].offset

    def incremental_unassign(self, _: list[TopicPartition]) -> None: ...

    def pause(self, _: list[TopicPartition]) -> None: ...

    resume = pause

    def committed(self, asked: list[TopicPartition], _: float) -> list[TopicPartition]:
        return [TopicPartition(asked[0].topic, 0, self.committed_offset, self.committed_text)]

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        return 0, len(self.log)


class Committing:
    def __init__(self, client: Client) -> None:
        self.client = client

    def deliver(self, _: object, offsets: list[TopicPartition], __: object) -> None:
        for place in offsets:
            self.client.committed_offset, self.client.committed_text = place.offset, place.metadata or ""


class NoTables:
    def read(self, _: str, __: int) -> dict[bytes, bytes]:
        return {}


class NoTests:
    is_full = False

    def __len__(self) -> int:
        return 0


def message(offset: int) -> Message:
    frame = Frame("m", {"fc": np.ones((2, 1), np.float32)}, event_time_ms=np.full(2, 500), frame_id=frame_id(offset))
    return Message(topic="t", partition=0, offset=offset, key=b"m", value=frame.encode(), timestamp=(2, 600))


def runtime_of(client: Any) -> Runtime:
    delivery: Any = Committing(client)
    nothing: Any = None
    tables: Any = NoTables()
    tests: Any = NoTests()
    return Runtime(
        consumer=client,
        delivery=delivery,
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
        tests=tests,
        clock=lambda: 1_000,
        telemetry=Telemetry(),
        cadence=Cadence(position_commit_ms=0),
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
