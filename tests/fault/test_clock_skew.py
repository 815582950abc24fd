"""A publisher whose clock is an hour off harms its own rows and nobody else's.

An hour ahead: its rows are quarantined and counted, its heartbeats ignored, and no window closes early by them. An hour
behind: its rows are late. Its neighbour on the same partition has every row of every window tested.
"""

from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.processor import frame_at
from tests.support.stage import Stage

from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.streams.clock import now_ms

pytestmark = pytest.mark.broker

HOUR_MS = 3_600_000


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_an_hour_off_does_not_harm_its_neighbour(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path, hours: int
) -> None:
    #   right    [ 0 )[ 1 )[ 2 ) ...        all on one partition
    #   skewed   +1 h: quarantined          −1 h: late
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["right", "skewed"])
    with stage.in_process() as processor:
        for window in range(10):
            right = stage.frames(window, models=["right"])
            off = now_ms() + hours * HOUR_MS
            stage.send(right[0], _skewed(off, window), Heartbeat("skewed", off), *right[1:])
        stage.send(*stage.frames(10, models=["skewed"]))
        stage.close_windows()
        stage.await_scores()
        processor.drain()

    found = stage.assert_every_window_once(windows=11)
    mine = [score for score in found.scores if score.model == "right"]
    assert [score.counts.seen for score in mine] == [30] * 10
    (other,) = (score for score in found.scores if score.model == "skewed")
    counts = (other.counts.quarantined, other.counts.late_since_previous)
    assert counts == ((40, 0) if hours > 0 else (0, 40))
    assert (found.batch.quarantined, len(found.batch.late)) == ((40, 0) if hours > 0 else (0, 10))


def _skewed(time_ms: int, window: int) -> Frame:
    return frame_at("skewed", [time_ms] * 4, f"skewed/{window}")
