"""Workers that come and go every second or two hold nothing up and double nothing.

One worker stays; others join and leave all the time while records come in, so that every partition changes hands again
and again with windows open. Work goes on in between: scores are committed during the storm, not only after it.
"""

import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.stage import InProcess, Stage
from tests.support.thorough import THOROUGH, only_when_thorough

pytestmark = pytest.mark.broker

SEED = 4
STORM_S = 120 if THOROUGH else 12


@only_when_thorough
def test_every_window_is_scored_once_in_a_storm_of_rebalances(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   w0  ───────────────────────────
    #   w1    ────    ─────   ───           one to three seconds each, seeded
    #   w2       ───────   ───    ─────
    models = [f"model-{number}" for number in range(6)]
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, models, partitions=4)
    chance = random.Random(SEED)
    with ExitStack() as stack:
        stays = stack.enter_context(stage.in_process())
        guests: list[InProcess] = []
        joined = window = 0
        began = time.monotonic()
        while time.monotonic() < began + STORM_S:
            if len(guests) < 2:
                guests.append(stack.enter_context(stage.in_process()))
                joined += 1
            else:
                guests.pop(chance.randrange(2)).drain()
            for _ in range(chance.randint(2, 6)):
                stage.send_windows([window])
                window += 1
                time.sleep(0.3)
        during = len(stage.scored())
        stage.close_windows()
        stage.await_scores()
        for worker in [*guests, stays]:
            worker.drain()

    assert joined >= STORM_S / 6
    assert during > 0, "work went on during the storm"
    stage.assert_every_window_once(windows=6 * 8)
