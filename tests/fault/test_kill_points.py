"""A worker killed with SIGKILL at any point of its work loses nothing and doubles nothing.

One after another, workers of the same name die in a test, before anything is sent, between produce and commit, and
between the broker's commit and the worker's own note of it. Each successor settles what was left open. Kills at random
moments: `test_kill.py` and `make soak`.
"""

from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.stage import QUICK_SESSION, Stage

pytestmark = [pytest.mark.broker, pytest.mark.slow]

POINTS = ("in-test:4=kill", "before-commit:2=kill", "after-produce:2=kill", "after-commit:2=kill")


def test_death_at_any_point_leaves_every_window_exactly_once(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   w  ──test✗  ──✗send  ──produce✗commit  ──commit✗  ──────     every one has windows of its own to do
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one", "two"], partitions=3)
    same = {"instance_id": f"{topic_prefix}w", "kafka": QUICK_SESSION}
    window = 0
    for number, point in enumerate(POINTS):
        with stage.process(f"w{number}", failpoint=point, **same) as worker:
            window = stage.send_until(worker.has_ended, f"it died at {point}", begin=window)
            assert worker.returncode == -9, worker.log
    stage.send_windows(range(window, window + 4))
    stage.close_windows()
    with stage.in_process(**same) as last:
        stage.await_scores()
        last.drain()

    stage.assert_every_window_once(windows=2 * 4 * 2)
