"""Workers killed with SIGKILL lose nothing and double nothing.

Two processors share three partitions. While records come in, one of them is killed at seeded points and replaced at
once. In the end a reader of committed records finds every window of every model exactly once, with the content that a
batch over the whole log computes; and every late record and every dead letter exactly once. At chosen points instead of
random moments: `test_kill_points.py`.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer
from deploy.broker.kraft import KraftBroker
from tests.support.batch import BatchRules, batch_of
from tests.support.broker import read_all
from tests.support.processor import (
    SAMPLING_KEY,
    WIDTH,
    Processor,
    await_until,
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

pytestmark = [pytest.mark.broker, pytest.mark.slow, only_when_thorough]

MODELS = [f"model-{number}" for number in range(7)]
WINDOWS = 52
K = 24
ROWS = 8
FRAMES_PER_WINDOW = 4
PACE_S = 24.0
KILLS = 5
PATIENCE = (8, 40)
"""A worker is killed once it has closed so many windows."""

SEED = 20_26
RULES = BatchRules(1_000, 800, 500, K, SAMPLING_KEY, {model: {"fc": WIDTH} for model in MODELS})


@pytest.mark.timeout(240)
def test_killed_workers_leave_every_window_exactly_once(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   w0  ────────✗ w0 ───────────────✗ w0 ──────────────
    #   w1  ─────────────────✗ w1 ────────────────✗ w1 ────      one -9 at each ✗
    make_topics(broker.bootstrap, topic_prefix, partitions=3)
    references = {model: small_reference(tmp_path, model, seed=i) for i, model in enumerate(MODELS)}
    chance = random.Random(SEED)
    with ExitStack() as stack:

        def worker(number: int) -> Processor:
            return stack.enter_context(_worker(broker, topic_prefix, tmp_path, references, number))

        workers = [worker(0), worker(1)]
        await_until(lambda: all("partitions assigned" in worker.log for worker in workers), "both joined the group")
        killed: list[Processor] = []
        patience = chance.randint(*PATIENCE)
        for _ in _traffic(broker, topic_prefix, chance, lambda: len(killed) >= KILLS):
            busy = [place for place in (0, 1) if workers[place].log.count("window_closed") >= patience]
            if len(killed) < KILLS and busy:
                workers[busy[0]].kill()
                killed.append(workers[busy[0]])
                workers[busy[0]] = worker(busy[0] + 10 * len(killed))
                patience = chance.randint(*PATIENCE)
        assert len(killed) == KILLS
        log = read_all(broker.bootstrap, ACTIVATIONS.full_name(topic_prefix))
        batch = batch_of(log, RULES)
        await_until(lambda: len(scores_of(broker.bootstrap, topic_prefix)) >= len(batch.windows), "all windows closed")
        await_until(lambda: all("processor started" in worker.log for worker in workers), "signals are heeded")
        assert [worker.drain() for worker in workers] == [0, 0]

    found = reckon(broker.bootstrap, topic_prefix, RULES, references)
    assert not found.faults, found.faults
    assert len(found.batch.windows) >= 300
    assert found.batch.late, "some rows were late"
    assert found.batch.dead, "some records were refused"


def _worker(broker: KraftBroker, prefix: str, folder: Path, references: dict[str, Path], number: int) -> Processor:
    return start(
        broker.bootstrap,
        prefix,
        folder,
        name=f"w{number}",
        instance_id=f"{prefix}w{number % 10}",  # the successor settles what its namesake left open
        reference=list(references.values()),
        k=K,
        kafka="session.timeout.ms=6000",
    )


def _traffic(broker: KraftBroker, prefix: str, chance: random.Random, is_enough: Callable[[], bool]) -> Iterator[None]:
    """Traffic over `PACE_S` seconds, with repetitions, late rows and poison; returns often, to look around.

    On a slow machine it goes on until `is_enough`, three times as long at most.
    """
    topic = ACTIVATIONS.full_name(prefix)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "partitioner": "murmur2_random", "linger.ms": 0})
    first = now_ms() // 1_000 * 1_000 - 600_000
    began = time.monotonic()
    for window in range(3 * WINDOWS):
        if window >= WINDOWS and is_enough():
            break
        sent = [_frame(model, first, window, part, chance) for model in MODELS for part in range(FRAMES_PER_WINDOW)]
        chance.shuffle(sent)
        sent += [chance.choice(sent), (chance.choice(MODELS), b"poison")]
        for model, value in sent:
            producer.produce(topic, value, model)
        producer.poll(0)
        while time.monotonic() < began + (window + 1) / WINDOWS * PACE_S:
            yield
            time.sleep(0.02)
    for model in MODELS:
        producer.produce(topic, Heartbeat(model, now_ms()).encode(), model)
    assert producer.flush(30) == 0


def _frame(model: str, first: int, window: int, part: int, chance: random.Random) -> tuple[str, bytes]:
    times = [first + window * 1_000 + chance.randrange(1_000) for _ in range(ROWS)]
    if window > 5 and chance.random() < 0.03:
        times[0] -= 5_000
    return model, frame_at(model, times, f"{model}/{window}/{part}").encode()
