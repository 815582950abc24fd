"""A reference announced in the middle of a window tests the next window, live and on replay alike.

A window is tested against the reference in force at its start. Whoever processes the same records later, in another
group, gets the same scores: which reference was in force follows from event times, not from when it was announced.
"""

from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.broker import produce
from tests.support.processor import await_until, load, scores_of, small_reference
from tests.support.stage import Stage

from hydrophone.schemas.frame import Heartbeat
from hydrophone.schemas.operations import ReferencePointer
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import REFERENCES

pytestmark = pytest.mark.broker


def test_window_keeps_the_reference_of_its_start_also_on_replay(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   windows      [ 0 )[ 1 )[ 2 )[ 3 )[ 4 )
    #   reference    a ───────────|b ─────────      b is in force from the middle of window 2
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one"])
    first, second = (small_reference(tmp_path, "one", seed=seed) for seed in (0, 7))
    _announce(stage, first, "a", 0)
    with stage.in_process(reference=()) as processor:
        stage.send_windows(range(2))
        _announce(stage, second, "b", stage.first_ms + 2_500)
        stage.pause_for_references()
        stage.send_windows(range(2, 5))
        stage.send(Heartbeat("one", now_ms()))
        await_until(lambda: len(stage.scored()) == 5, "every window was scored")
        processor.drain()
    live = _ordered(scores_of(broker.bootstrap, topic_prefix))
    with stage.in_process(reference=(), group=f"{topic_prefix}again") as processor:
        stage.close_windows()
        await_until(lambda: len(scores_of(broker.bootstrap, topic_prefix)) == 10, "every window was scored again")
        processor.drain()

    a, b = load(first).id.sha256, load(second).id.sha256
    assert [score.reference.sha256 if score.reference else None for score in live] == [a, a, a, b, b]
    again = _ordered(scores_of(broker.bootstrap, topic_prefix))
    assert [(s.id, s.content_sha256, s.joint) for s in again[::2]] == [(s.id, s.content_sha256, s.joint) for s in live]
    assert [(s.id, s.content_sha256, s.joint) for s in again[1::2]] == [(s.id, s.content_sha256, s.joint) for s in live]


def _ordered(scores: list[WindowScore]) -> list[WindowScore]:
    return sorted(scores, key=lambda score: score.window.start_ms)


def _announce(stage: Stage, folder: Path, version: str, effective_from_ms: int) -> None:
    pointer = ReferencePointer(
        model="one",
        version=version,
        uri=folder.as_uri(),
        sha256=load(folder).id.sha256,
        effective_from_ms=effective_from_ms,
    )
    record = (pointer.key.encode(), pointer.model_dump_json().encode())
    produce(stage.bootstrap, REFERENCES.full_name(stage.prefix), [record])
