"""Two publishers place one model by different rules, two processors have a half each: one of them says so.

A model that is always on another partition than its key's murmur2 says is whole, and nothing is told of it.
"""

from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.broker import produce
from tests.support.processor import await_until
from tests.support.stage import QUICK_SESSION, Stage

from hydrophone.schemas.frame import Heartbeat
from hydrophone.streams.clock import now_ms
from hydrophone.streams.misplaced import home

pytestmark = pytest.mark.broker

HALVED, ELSEWHERE = "one", "right"


def test_halves_at_two_processors_are_announced_and_a_whole_model_elsewhere_is_not(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   `one`     on both partitions, a processor each
    #   `right`   on the partition where its key does not belong, and nowhere else
    away = {model: 1 - home(model, 2) for model in (HALVED, ELSEWHERE)}
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, [HALVED, ELSEWHERE], partitions=2)
    with stage.in_process(kafka=QUICK_SESSION) as first, stage.in_process(kafka=QUICK_SESSION) as second:
        both = (first.runtime, second.runtime)
        await_until(lambda: all(len(runtime._partitions) == 1 for runtime in both), "each has a partition")
        for window in range(3):
            for frame in stage.frames(window):
                for partition in (0, 1) if frame.model == HALVED else (away[ELSEWHERE],):
                    produce(
                        broker.bootstrap, stage.topic, [(frame.model.encode(), frame.encode())], partition=partition
                    )
        for partition in (0, 1):
            beat = Heartbeat("beat", now_ms())
            produce(broker.bootstrap, stage.topic, [(b"beat", beat.encode())], partition=partition)
        await_until(lambda: bool(stage.events()), "the halves were announced", timeout_s=60)
        await_until(lambda: (ELSEWHERE, stage.first_ms + 2_000) in stage.scored(), "all windows were scored")
        first.drain()
        second.drain()

    told = {(event.kind, event.model, event.partition) for event in stage.events()}
    assert told == {("model_on_two_partitions", HALVED, away[HALVED])}
