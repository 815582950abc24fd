"""Windows of minutes to hours: a worker that is killed and comes back reads a few records again, not a window of them.

Open windows are written to `snapshots` with the offset that counts on them. What was counted and sampled before is
there; only what came since the last snapshot is read again, and the scores are those of a batch over the whole log.
Where the snapshots are gone, an event says so and the windows are read again from their first records. When a window
has closed, nothing of it is left.
"""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from deploy.broker.kraft import KraftBroker
from tests.support.broker import produce, read_all
from tests.support.processor import await_until, frame_at
from tests.support.stage import QUICK_SESSION, Stage

from hydrophone.schemas.frame import Frame
from hydrophone.streams.topics import SNAPSHOTS

pytestmark = pytest.mark.broker

LONG_MS = 60_000
PARTS = 40


def long_stage(bootstrap: str, prefix: str, folder: Path) -> Stage:
    stage = Stage.of(bootstrap, prefix, folder, ["one", "two"])
    return replace(stage, rules=replace(stage.rules, window_ms=LONG_MS), first_ms=stage.first_ms // LONG_MS * LONG_MS)


def frames(stage: Stage, parts: range) -> list[Frame]:
    """Of both models, in two windows that lie side by side; each part comes twice."""
    begin = stage.first_ms + LONG_MS
    return [
        frame_at(model, [begin - 400 + part] * 3 + [begin + part] * 3, f"{model}/{part}")
        for part in parts
        for model in stage.models
        for _ in range(2)
    ]


def committed(stage: Stage) -> tuple[int, dict[str, Any]]:
    """The only partition's offset and what stands beside it."""
    consumer = Consumer({"bootstrap.servers": stage.bootstrap, "group.id": f"{stage.prefix}group"})
    try:
        place = consumer.committed([TopicPartition(stage.topic, 0)], 10)[0]
    finally:
        consumer.close()
    return place.offset, json.loads(place.metadata or "{}")


def snapshots(stage: Stage) -> dict[bytes | None, bytes | None]:
    records = read_all(stage.bootstrap, SNAPSHOTS.full_name(stage.prefix))
    return {record.key: record.value for record in records}


def taken_up(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int, int]]:
    """Offset, position and restored windows of each time that a partition was taken up in this process."""
    return [
        (record.offset, record.position, record.snapshots)  # type: ignore[attr-defined]
        for record in caplog.records
        if record.message == "partition taken up"
    ]


def test_a_restart_reads_again_what_came_since_the_snapshot(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    #   window A  [────────────────────────────)
    #   window B            [──────────────────────────────────)
    #   records   160 of both       │ snapshots      40 more ✗      heartbeat
    caplog.set_level(logging.INFO, logger="hydrophone")
    stage = long_stage(broker.bootstrap, topic_prefix, tmp_path)
    options: dict[str, Any] = {"window_ms": LONG_MS, "kafka": QUICK_SESSION}
    with stage.process("killed", **options, snapshot_ms=500) as worker:
        stage.send(*frames(stage, range(PARTS)))
        await_until(lambda: committed(stage)[0] >= 4 * PARTS, "windows were written down", timeout_s=30)
        offset, before = committed(stage)
        assert before["v"] == 2
        assert before["h"][0] == 4, "two windows of two models"
        assert before["h"][2] == 0, "without the snapshots all would have to be read again"
        worker.kill()
    with stage.process("slow", **options, snapshot_ms=3_600_000) as worker:
        stage.send(*frames(stage, range(PARTS, PARTS + 10)))
        await_until(lambda: committed(stage)[1]["p"] >= 4 * PARTS + 40, "the rest was read", timeout_s=30)
        worker.kill()
    with stage.in_process(**options, snapshot_ms=500) as last:
        await_until(lambda: bool(taken_up(caplog)), "it was taken up", timeout_s=30)
        stage.close_windows()
        stage.await_scores()
        last.drain()

    assert taken_up(caplog)[0] == (offset, 4 * PARTS + 40, 4), "40 records of 200 are read again"
    stage.assert_every_window_once(windows=4)
    assert not stage.events()
    left = {key: value for key, value in snapshots(stage).items() if value is not None}
    assert not left, "closed windows leave nothing"


def test_lost_snapshots_are_told_and_made_up_for(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="hydrophone")
    stage = long_stage(broker.bootstrap, topic_prefix, tmp_path)
    options: dict[str, Any] = {"window_ms": LONG_MS, "snapshot_ms": 500, "kafka": QUICK_SESSION}
    with stage.in_process(**options) as first:
        stage.send(*frames(stage, range(PARTS)))
        await_until(lambda: committed(stage)[0] >= 4 * PARTS, "windows were written down", timeout_s=30)
        first.drain()
    heads = [key for key in snapshots(stage) if key is not None and b'"head"' in key]
    assert len(heads) == 4
    produce(stage.bootstrap, SNAPSHOTS.full_name(stage.prefix), [(heads[0], None)], partition=0)
    caplog.clear()
    with stage.in_process(**options) as last:
        await_until(lambda: bool(taken_up(caplog)), "it was taken up", timeout_s=30)
        stage.close_windows()
        stage.await_scores()
        last.drain()

    assert taken_up(caplog)[0] == (0, 4 * PARTS, 0)
    stage.assert_every_window_once(windows=4)
    assert [event.kind for event in stage.events()] == ["snapshot_lost"]
    assert not any(snapshots(stage).values())
