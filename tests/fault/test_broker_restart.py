"""A broker that dies and comes back costs time and nothing else; where none answers, the program says so and ends.

The broker is killed while a processor works, and started again on its old folder. The processor goes on by itself, and
every window is scored exactly once, with the content of a batch over the log.
"""

import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from deploy.broker.kraft import KraftBroker
from tests.support.batch import BatchRules, batch_of
from tests.support.broker import read_all
from tests.support.processor import (
    SAMPLING_KEY,
    WIDTH,
    await_until,
    cli,
    frame_at,
    make_topics,
    scores_of,
    small_reference,
    start,
)
from tests.support.reckoning import reckon
from tests.support.thorough import only_when_thorough

from hydrophone.schemas.frame import Heartbeat
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import ACTIVATIONS

pytestmark = pytest.mark.broker

MODEL = "patient"
K = 24
WINDOWS = 60
SESSION = "session.timeout.ms=6000"
RULES = BatchRules(1_000, 800, 500, K, SAMPLING_KEY, {MODEL: {"fc": WIDTH}})


@only_when_thorough
def test_killed_broker_comes_back_and_every_window_is_scored_once(
    own_broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   records   . . . . . . . . . . . . .
    #   broker    ────────✗      ──────────       ✗ -9, two seconds later back
    bootstrap = own_broker.bootstrap
    make_topics(bootstrap, topic_prefix)
    reference = small_reference(tmp_path, MODEL)
    with start(bootstrap, topic_prefix, tmp_path, reference=reference, k=K, kafka=SESSION) as processor:
        await_until(lambda: "partitions assigned" in processor.log, "the processor works")
        producer = Producer(
            {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "enable.idempotence": True}
        )
        first = now_ms() // 1_000 * 1_000 - 120_000
        for number in range(WINDOWS):
            for part in range(3):
                frame = frame_at(MODEL, [first + number * 1_000 + part] * 10, f"{number}/{part}")
                producer.produce(ACTIVATIONS.full_name(topic_prefix), frame.encode(), MODEL)
            producer.poll(0.05)
            if number == WINDOWS // 2:
                await_until(lambda: processor.log.count("window_closed") >= 5, "some windows closed")
                own_broker.kill()
                time.sleep(2)
                own_broker.restart()
        producer.produce(ACTIVATIONS.full_name(topic_prefix), Heartbeat(MODEL, now_ms()).encode(), MODEL)
        assert producer.flush(30) == 0
        expected = batch_of(read_all(bootstrap, ACTIVATIONS.full_name(topic_prefix)), RULES).windows
        await_until(lambda: len(scores_of(bootstrap, topic_prefix)) >= len(expected), "every window was scored")
        assert processor.drain() == 0

    found = reckon(bootstrap, topic_prefix, RULES, {MODEL: reference})
    assert not found.faults, found.faults
    assert len(found.scores) == WINDOWS


@only_when_thorough
def test_no_broker_at_the_start_is_exit_code_4(tmp_path: Path) -> None:
    reference = small_reference(tmp_path, MODEL)

    ended = cli("process", "--reference", reference, "--bootstrap", "127.0.0.1:1", folder=tmp_path)

    assert ended.returncode == 4
    assert "no answer from the broker at `127.0.0.1:1`" in ended.stderr
    assert "Traceback" not in ended.stderr
