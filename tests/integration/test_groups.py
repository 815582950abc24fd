"""Processors share partitions by the newest protocol the broker has, and a named one keeps its own over a restart.

- On a broker that speaks KIP-848 the group is of the `consumer` type, on one that does not it is `classic`.
- A named processor that is stopped and started again within the session time-out gets its partitions back, and its
  neighbour sees no rebalance; a name that is taken is refused by name.
- Whichever protocol it is, every window is scored exactly once over a join and a kill -9.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupType
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]  # re-exported without saying so
from deploy.broker.kraft import KraftBroker
from tests.support.broker import produce, require_kraft
from tests.support.processor import (
    Processor,
    await_until,
    frame_at,
    make_topics,
    scores_of,
    small_reference,
    start,
)

from hydrophone.schemas.frame import Heartbeat
from hydrophone.streams.clock import now_ms
from hydrophone.streams.kafka.groups import protocol_of
from hydrophone.streams.topics import ACTIVATIONS

pytestmark = [pytest.mark.broker, pytest.mark.slow]

MODELS = [f"model-{number}" for number in range(4)]


@pytest.fixture
def classic_broker() -> Iterator[KraftBroker]:
    """A broker that knows the old protocol alone."""
    require_kraft()
    with KraftBroker({"group.coordinator.rebalance.protocols": "classic"}) as running:
        yield running


def test_old_brokers_get_the_old_protocol(classic_broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    assert protocol_of({"bootstrap.servers": classic_broker.bootstrap}) == "classic"
    found = _every_window_once_over_a_join_and_a_kill(classic_broker.bootstrap, topic_prefix, tmp_path)
    assert found == ConsumerGroupType.CLASSIC


def test_new_brokers_get_the_new_protocol(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    assert protocol_of({"bootstrap.servers": broker.bootstrap}) == "consumer"
    found = _every_window_once_over_a_join_and_a_kill(broker.bootstrap, topic_prefix, tmp_path)
    assert found == ConsumerGroupType.CONSUMER


def test_a_property_of_the_old_protocol_chooses_it(broker: KraftBroker) -> None:
    assert protocol_of({"bootstrap.servers": broker.bootstrap, "session.timeout.ms": 6_000}) == "classic"


def test_named_processor_comes_back_to_its_partitions_unnoticed(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   a  ──────────────┤  ├───────      drained and started again
    #   b  ─────────────────────────      keeps what it has
    make_topics(broker.bootstrap, topic_prefix, partitions=4)
    shared = {"reference": small_reference(tmp_path, MODELS[0])}

    def worker(name: str, run: int) -> Processor:
        return start(
            broker.bootstrap, topic_prefix, tmp_path, name=f"{name}{run}", instance_id=f"{topic_prefix}{name}", **shared
        )

    with worker("a", 1) as first, worker("b", 1) as neighbour:
        await_until(lambda: sorted(map(len, (_owned(first), _owned(neighbour)))) == [2, 2], "each has two partitions")
        mine, before = _owned(first), _moves(neighbour)
        assert first.drain() == 0
        with worker("a", 2) as again:
            await_until(lambda: _owned(again) == mine, "it has its partitions back")
            assert _moves(neighbour) == before, "the neighbour saw nothing of it"


def test_a_taken_name_is_refused_by_name(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   a  ──────────────────
    #   a        ├ refused
    make_topics(broker.bootstrap, topic_prefix, partitions=1)
    shared = {"reference": small_reference(tmp_path, MODELS[0]), "group_protocol": "consumer", "instance_id": "a"}
    with start(broker.bootstrap, topic_prefix, tmp_path, name="a1", **shared) as first:
        await_until(lambda: "partitions assigned" in first.log, "it works")
        with start(broker.bootstrap, topic_prefix, tmp_path, name="a2", **shared) as second:
            assert second.wait(120) != 0
            assert "`--instance-id` is held by another process" in second.log


def _moves(worker: Processor) -> list[tuple[str, tuple[int, ...]]]:
    """What it was given and what was taken from it, in order; empty moves left out."""
    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    return [
        (x["event"], tuple(x["partitions"])) for x in lines if x["event"].startswith("partitions ") and x["partitions"]
    ]


def _owned(worker: Processor) -> set[int]:
    owned: set[int] = set()
    for event, partitions in _moves(worker):
        owned = owned | set(partitions) if event == "partitions assigned" else owned - set(partitions)
    return owned


def _every_window_once_over_a_join_and_a_kill(bootstrap: str, prefix: str, folder: Path) -> ConsumerGroupType:
    """Gives the type of the group that did it."""
    #   a  ────────────────────✗
    #   b          ├───────────────────
    make_topics(bootstrap, prefix, partitions=4)
    references = [small_reference(folder, model) for model in MODELS]
    first_ms = now_ms() // 1_000 * 1_000 - 600_000
    topic = ACTIVATIONS.full_name(prefix)

    def send(windows: range) -> None:
        records = [
            (model.encode(), frame_at(model, [first_ms + w * 1_000] * 30, f"{model}/{w}").encode())
            for w in windows
            for model in MODELS
        ]
        produce(bootstrap, topic, records)

    with start(bootstrap, prefix, folder, name="a", reference=references) as a:
        send(range(8))
        await_until(lambda: "window_closed" in a.log, "it works")
        with start(bootstrap, prefix, folder, name="b", reference=references) as b:
            await_until(lambda: "partitions assigned" in b.log, "another joined")
            kind = _type_of(bootstrap, f"{prefix}group")
            send(range(8, 16))
            a.kill()
            send(range(16, 20))
            produce(bootstrap, topic, [(m.encode(), Heartbeat(m, now_ms()).encode()) for m in MODELS])
            await_until(lambda: len(scores_of(bootstrap, prefix)) >= 20 * len(MODELS), "all closed", timeout_s=120)
            assert b.drain() == 0
    found = Counter((score.model, score.window.start_ms) for score in scores_of(bootstrap, prefix))
    assert found == Counter((model, first_ms + w * 1_000) for w in range(20) for model in MODELS)
    return kind


def _type_of(bootstrap: str, group: str) -> ConsumerGroupType:
    admin = AdminClient({"bootstrap.servers": bootstrap})  # kept: what it promised ends with it
    found: ConsumerGroupType = admin.describe_consumer_groups([group])[group].result(20).type
    return found
