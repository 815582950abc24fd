"""Slowness costs time only: of a test, of the broker's answers, and of a worker that is away longer than it may be.

A test or a transaction ten times as slow keeps its worker's place in the group; where tests cannot keep pace, fewer
rows are tested and the score says how many. A worker silent for longer than `max.poll.interval.ms` loses its
partitions, throws away what it had, and does it again from what is committed.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.stage import QUICK_SESSION, Stage
from tests.support.thorough import only_when_thorough

from hydrophone.streams import failpoints

pytestmark = pytest.mark.broker


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


@pytest.mark.parametrize("place", ["in-test", "before-commit"])
def test_slow_tests_and_slow_transactions_keep_their_place_in_the_group(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    #   every test, or every transaction, takes 0.2 s longer: ten times as long
    caplog.set_level(logging.INFO, "hydrophone")
    failpoints.arm(f"{place}=sleep 0.2")
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one", "two"])
    with stage.in_process(kafka=QUICK_SESSION) as processor:
        for window in range(12):
            stage.send_windows([window])
        stage.close_windows()
        stage.await_scores()
        processor.drain()

    assert "partitions lost" not in caplog.text
    stage.assert_every_window_once(windows=24)


@only_when_thorough
def test_worker_away_for_longer_than_it_may_be_starts_anew_from_what_is_committed(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    #   worker   ──work──────── asleep for 9 s ────────── lost ── recovers ──
    #   group             6 s: out of it
    caplog.set_level(logging.INFO, "hydrophone")
    failpoints.arm("before-commit:2=sleep 9")
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one", "two"])
    with stage.in_process(kafka={"session.timeout.ms": "6000", "max.poll.interval.ms": "6000"}) as processor:
        stage.send_windows(range(12))
        stage.close_windows()
        stage.await_scores()
        processor.drain()

    assert "partitions lost" in caplog.text
    stage.assert_every_window_once(windows=24)
