"""Silence closes windows within its bound: of a partition, of a model among busy ones, and of everything.

A partition read to its end and silent for `idle_ms` has its windows closed by the clock, `idle_ms` + `lateness_ms`
after they end; a silent model on a busy partition is closed by its neighbours' time. Never while there is more to read.
"""

import time
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.processor import await_until, frame_at
from tests.support.stage import Stage

from hydrophone.streams.clock import now_ms

pytestmark = pytest.mark.broker

IDLE_MS = 1_500
BOUND_S = (1_000 + IDLE_MS + 800) / 1_000 + 3
"""The rest of the window, the idle time, the lateness, and what a busy machine takes."""

ALONE = "single"
"""murmur2 places it on the other of two partitions than `busy` and `quiet`."""


def test_idle_partition_idle_model_and_all_idle(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   busy, quiet   . q . . . . . . .|          on one partition: `quiet` is closed by `busy`
    #   alone         .                           on the other: closed by the clock
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["busy", "quiet", ALONE], partitions=2)
    with stage.in_process(idle_ms=IDLE_MS) as processor:
        for model in stage.models:
            stage.send(frame_at(model, [now_ms()] * 30, f"{model}/first"))
        began = time.monotonic()
        while not {"quiet", ALONE} <= {model for model, _ in stage.scored()}:
            assert time.monotonic() < began + BOUND_S + 2, "both were closed while `busy` went on"
            stage.send(frame_at("busy", [now_ms()] * 5, f"busy/{time.monotonic()}"))
            time.sleep(0.2)
        silent = time.monotonic()
        await_until(lambda: not _open(stage), "the last windows were closed by the clock")
        assert time.monotonic() - silent < BOUND_S + 2
        stage.send(frame_at(ALONE, [now_ms() - 10_000] * 5, "after the silence"))
        await_until(lambda: bool(stage.reckon(by_clock=True).batch.late), "what came after the silence was late")
        processor.drain()

    stage.assert_every_window_once(by_clock=True, windows=4)


def _open(stage: Stage) -> list[tuple[str, int]]:
    return stage.reckon(by_clock=True).missing
