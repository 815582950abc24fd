"""An announced reference is in force from its effective time; one that cannot be loaded holds its model back.

Without a pinned reference, windows before the effective time are `not_tested: no_reference`, those behind it are
tested. A pointer to a folder that is not there stops its model and says so in `events`; once the folder appears,
everything that waited is scored.
"""

import shutil
import time
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.broker import produce
from tests.support.processor import (
    await_until,
    cli,
    events_of,
    frame_at,
    load,
    make_topics,
    scores_of,
    small_reference,
    start,
)

from hydrophone.schemas.frame import Heartbeat
from hydrophone.schemas.operations import OperationalEvent, ReferencePointer
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import ACTIVATIONS, EVENTS, REFERENCES

pytestmark = pytest.mark.broker

READY, MISSING = "ready", "missing"


def test_announced_reference_is_used_from_its_time_and_a_missing_one_is_waited_for(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   `ready`     [ no reference )[ no reference )|[ tested )        | effective from
    #   `missing`   waits ......................... folder appears: [ tested )
    make_topics(broker.bootstrap, topic_prefix)
    topic = ACTIVATIONS.full_name(topic_prefix)
    references = {model: small_reference(tmp_path, model) for model in (READY, MISSING)}
    announced = cli(
        *("reference", "announce", references[READY], "--bootstrap", broker.bootstrap, "--prefix", topic_prefix),
        *("--window-ms", 1_000),
        folder=tmp_path,
        HYDROPHONE_LATENESS_MS="800",
        HYDROPHONE_FUTURE_SKEW_MS="500",
        HYDROPHONE_EXPECTED_DELAY_MS="300",
    )
    assert announced.returncode == 0, announced.stderr
    hidden = tmp_path / "elsewhere"
    pointer = _pointer(references[MISSING])
    shutil.move(references[MISSING], hidden)
    produce(
        broker.bootstrap,
        REFERENCES.full_name(topic_prefix),
        [(pointer.key.encode(), pointer.model_dump_json().encode())],
    )
    with start(broker.bootstrap, topic_prefix, tmp_path, k=32) as processor:
        effective = int(announced.stdout.split("in force from ")[1].split()[0])
        before, after = effective // 1_000 * 1_000 - 1_000, effective // 1_000 * 1_000 + 1_000
        _window(broker, topic, READY, before)
        time.sleep(max(0.0, (after + 100 - now_ms()) / 1_000))
        _window(broker, topic, READY, after)
        produce(broker.bootstrap, topic, [(READY.encode(), Heartbeat(READY, after + 400).encode())])
        await_until(lambda: len(_scores(broker, topic_prefix, READY)) == 1, "the window without a reference is told")
        _window(broker, topic, MISSING, after)
        await_until(lambda: bool(events_of(broker.bootstrap, topic_prefix, EVENTS, OperationalEvent)), "an event")
        time.sleep(max(0.0, (after + 2_000 - now_ms()) / 1_000))
        produce(broker.bootstrap, topic, [(READY.encode(), Heartbeat(READY, now_ms()).encode())])
        time.sleep(2.5)
        assert not _scores(broker, topic_prefix, MISSING), "it waits"
        (event,) = events_of(broker.bootstrap, topic_prefix, EVENTS, OperationalEvent)
        assert (event.kind, event.model) == ("reference_unloadable", MISSING)

        shutil.move(hidden, references[MISSING])
        await_until(lambda: len(_scores(broker, topic_prefix, MISSING)) == 1, "the model goes on")
        await_until(lambda: len(_scores(broker, topic_prefix, READY)) == 2, "so does its neighbour")
        assert processor.drain() == 0

    without, with_reference = _scores(broker, topic_prefix, READY)
    assert (without.status, without.reason, without.reference) == ("not_tested", "no_reference", None)
    assert (without.counts.seen, without.counts.tested) == (30, 0)
    assert with_reference.status == "tested"
    assert with_reference.reference == load(references[READY]).id
    (waited,) = _scores(broker, topic_prefix, MISSING)
    assert (waited.status, waited.counts.seen) == ("tested", 30)


def test_announcing_too_early_is_refused(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    refused = cli(
        *("reference", "announce", small_reference(tmp_path, READY), "--effective-from", "2020-01-01"),
        *("--bootstrap", broker.bootstrap, "--prefix", topic_prefix),
        folder=tmp_path,
    )

    assert refused.returncode == 3
    assert "`--effective-from` must be at least window + lateness from now" in refused.stderr


def _pointer(folder: Path) -> ReferencePointer:
    reference = load(folder)
    return ReferencePointer(
        model=reference.manifest.model,
        version=reference.id.version,
        uri=folder.as_uri(),
        sha256=reference.id.sha256,
        effective_from_ms=0,
    )


def _window(broker: KraftBroker, topic: str, model: str, start_ms: int) -> None:
    records = [frame_at(model, [start_ms + part] * 10, f"{start_ms}/{part}").encode() for part in range(3)]
    produce(broker.bootstrap, topic, [(model.encode(), record) for record in records])


def _scores(broker: KraftBroker, prefix: str, model: str) -> list[WindowScore]:
    found = [score for score in scores_of(broker.bootstrap, prefix) if score.model == model]
    return sorted(found, key=lambda score: score.window.start_ms)
