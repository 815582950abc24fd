"""Rows in any order within the lateness count; later ones go to `late`, each told once, and are counted by a score.

The generator is seeded: rows come shuffled within what the lateness allows, some come just too late, and some from long
ago. None that was within the bound is lost.
"""

import random
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.processor import frame_at
from tests.support.stage import Stage

from hydrophone.schemas.frame import Frame

pytestmark = pytest.mark.broker

SEED = 6
LATENESS_MS = 800
WINDOWS = 20


def test_order_within_the_lateness_does_not_matter_and_what_is_later_is_told(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   event time   0 ... 1 ... 2 ... 3          arrival = event time + up to 800 ms
    #   arrives      1 0 2 3 . 0! .. -1h!         ! late
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one", "two"], partitions=3)
    chance = random.Random(SEED)
    in_time = sorted(
        (
            (time_ms + chance.randrange(LATENESS_MS), model, time_ms)
            for model in stage.models
            for time_ms in _times(chance)
        ),
    )
    with stage.in_process() as processor:
        stage.send(*(_frame(stage, model, time_ms) for _, model, time_ms in in_time))
        late = [_frame(stage, "one", time_ms) for time_ms in (17_990, 16_500, 1_000, -3_600_000)]
        stage.send(*late)
        both = [stage.first_ms + 2_000] * 3 + [stage.first_ms + 20_500] * 4
        stage.send(frame_at("one", both, "partly late"))
        stage.close_windows()
        stage.await_scores()
        processor.drain()

    found = stage.assert_every_window_once(windows=2 * WINDOWS)
    assert sorted(map(len, found.batch.late.values())) == [3, 5, 5, 5, 5], "nothing within the bound was late"
    assert sum(score.counts.late_since_previous for score in found.scores) == 23


def _times(chance: random.Random) -> list[int]:
    return [window * 1_000 + chance.randrange(1_000) for window in range(WINDOWS) for _ in range(8)]


def _frame(stage: Stage, model: str, time_ms: int) -> Frame:
    return frame_at(model, [stage.first_ms + time_ms] * 5, f"{model}/{time_ms}")
