"""SIGTERM drains; a worker that was frozen past its session and thawed again can commit nothing of the past.

The zombie freezes itself between produce and commit. Its partitions go to another worker, its transaction runs out, and
when it is thawed the broker refuses it: it joins again clean, or ends with the exit code of a broker's refusal.
"""

import os
import signal
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.processor import await_until
from tests.support.stage import QUICK_SESSION, Stage
from tests.support.thorough import only_when_thorough

pytestmark = [pytest.mark.broker, pytest.mark.slow]

BROKER_SAYS_NO = 4


@only_when_thorough
def test_frozen_worker_commits_nothing_when_it_thaws(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   zombie   ──produce ❄ . . . . . . . . . ☀ refused ──── SIGTERM: exit code 0
    #   other                 ──takes over───────────────────
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one", "two"], partitions=3)
    with stage.process("zombie", failpoint="after-produce:3=stop", kafka=QUICK_SESSION) as zombie:
        window = stage.send_until(lambda: _is_stopped(zombie.pid), "it froze between produce and commit")
        with stage.in_process(kafka=QUICK_SESSION) as other:
            stage.send_windows(range(window, window + 4))
            stage.close_windows()
            stage.await_scores()
            os.kill(zombie.pid, signal.SIGCONT)
            await_until(
                lambda: "nothing was committed" in zombie.log or zombie.returncode is not None, "it was refused"
            )
            stage.send(*stage.frames(0, models=["one"]))  # of the past: late, and told once whoever reads it
            assert zombie.drain() in (0, BROKER_SAYS_NO), zombie.log
            stage.await_scores()
            await_until(lambda: not stage.reckon().faults, "late rows were told")
            other.drain()

    stage.assert_every_window_once(windows=2 * 5)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
