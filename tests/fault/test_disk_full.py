"""A full disk stops what needs it, says so, and leaves nothing half done.

At the broker: it goes down when it cannot write; once there is room and it is back, work goes on and every window is
scored once. At the worker: evidence that cannot be stored costs the evidence, never the score; it is logged.
"""

import logging
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.broker import require_kraft
from tests.support.processor import await_until, frame_at
from tests.support.stage import Stage
from tests.support.thorough import only_when_thorough

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.frame import Heartbeat
from hydrophone.streams.clock import now_ms

pytestmark = pytest.mark.broker


@contextmanager
def small_disk(where: Path, size: str) -> Iterator[Path]:
    """A file system of this size; skips where none may be mounted."""
    where.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", where], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)


def test_evidence_that_cannot_be_stored_costs_no_score(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    #   evidence   [ full disk ] ✗ ✗ ✗      scores   s s s ...
    caplog.set_level(logging.INFO, "hydrophone")
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one"])
    with small_disk(tmp_path / "small", "64k") as disk:
        (disk / "filler").write_bytes(bytes(64 * 1024))
        with stage.in_process(evidence=str(disk), false_alarms_per_month=2_000) as processor:
            for window in range(6):
                times = [stage.first_ms + window * 1_000] * 40
                stage.send(frame_at("one", times, f"shifted/{window}", shift=3.0))
            stage.close_windows()
            stage.await_scores()
            processor.drain()

    found = stage.assert_every_window_once(windows=6)
    assert any(score.rejected for score in found.scores), "there was evidence to store"
    assert all(score.evidence is None for score in found.scores)
    assert "evidence of a window could not be stored" in caplog.text


@only_when_thorough
def test_broker_without_room_goes_down_and_nothing_is_lost(topic_prefix: str, tmp_path: Path) -> None:
    #   disk     [......full✗        [more room .....
    #   worker   ──────────── waits ─────────────────
    require_kraft()
    roomy = {"log.segment.bytes": str(1 << 20), "log.index.size.max.bytes": "4096"}
    with (
        small_disk(tmp_path / "disk", "24m") as disk,
        KraftBroker(roomy, directory=disk / "broker") as broker,
    ):
        stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one"])
        stage.send_windows(range(6))
        with stage.in_process() as processor:
            stage.await_scores_of(4)
            filler = disk / "filler"
            _fill(filler)
            stage_sent = _send_until_down(stage, broker)
            assert not broker.is_running, "the broker went down"
            filler.unlink()
            broker.restart()
            stage.send_windows(range(6, 12))
            stage.send(Heartbeat("one", now_ms()))
            stage.await_scores(timeout_s=120)
            try:
                processor.drain()
            except ConfigurationError as error:
                pytest.fail(f"the processor gave up: {error}")
        assert stage_sent > 0
        stage.assert_every_window_once(windows=12)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as to:
        try:
            while True:
                to.write(bytes(64 * 1024))
        except OSError:
            return


def _send_until_down(stage: Stage, broker: KraftBroker) -> int:
    """Records of no model until the disk is full; they are dead letters or were never written."""
    from confluent_kafka import Producer  # noqa: PLC0415  # only here are failures to deliver expected

    producer = Producer({"bootstrap.servers": stage.bootstrap, "delivery.timeout.ms": 20_000})
    sent = 0

    def is_down() -> bool:
        nonlocal sent
        producer.produce(stage.topic, bytes(100_000), "one")
        sent += 1
        producer.poll(0.2)
        return not broker.is_running

    await_until(is_down, "the broker noticed that its disk is full")
    producer.purge()
    producer.flush(5)
    return sent
