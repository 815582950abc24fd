"""Whatever happened to the processor, `hydrophone replay` finds every score again: all from the topic, rejecting ones
also from their evidence.

The stream holds what a window can meet: rows out of order, late and dated in the future, repeated frames, poison,
frames over two windows. It is processed by a worker that is killed with SIGKILL, under a reference that changes within
a window, and by two workers of which one joins on the way. A score that was altered is told, and so are records that
are gone.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]  # re-exported without saying so
from deploy.broker.kraft import KraftBroker
from tests.support.broker import produce
from tests.support.processor import WIDTH, await_until, frame_at, load, make_topics, scores_of, small_reference, start
from tests.support.thorough import only_when_thorough

from hydrophone.schemas.frame import Heartbeat
from hydrophone.schemas.operations import ReferencePointer
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.cli import run
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import ACTIVATIONS, REFERENCES

pytestmark = [pytest.mark.broker, pytest.mark.slow]

MODELS: Final = ("one", "two", "three")
WINDOWS: Final = 12
K: Final = 24
TIMES: Final = ("--lateness-ms", "800", "--future-skew-ms", "500", "--expected-delay-ms", "300")
"""As `tests.support.processor.start` has them."""

KEY_IS_PUBLIC: Final = "HYDROPHONE_SAMPLING_KEY"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(KEY_IS_PUBLIC, raising=False)
    monkeypatch.chdir(tmp_path)


def test_after_a_kill_every_score_replays(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    #   records   ───────── half ─────────┊──────── rest ────────
    #   worker    ──────────────── -9 ✗     ─────────────────────
    make_topics(broker.bootstrap, topic_prefix, partitions=3)
    references = [small_reference(tmp_path, model, seed=i) for i, model in enumerate(MODELS)]
    records = _stream()
    half = len(records) // 2
    options = {"reference": references, "k": K, "instance_id": f"{topic_prefix}w", "kafka": "session.timeout.ms=6000"}
    _send(broker, topic_prefix, records[:half])
    with start(broker.bootstrap, topic_prefix, tmp_path, name="first", **options) as first:
        await_until(lambda: first.log.count("window_closed") >= 5, "some windows closed")
        _send(broker, topic_prefix, records[half : half + 20])
        first.kill()
    _send(broker, topic_prefix, records[half + 20 :])
    with start(broker.bootstrap, topic_prefix, tmp_path, name="second", **options) as second:
        await_until(lambda: _is_complete(broker, topic_prefix), "every window was scored")
        assert second.drain() == 0
    scores = scores_of(broker.bootstrap, topic_prefix)

    pinned = [text for folder in references for text in ("--reference", str(folder))]
    _assert_all_replay(broker, topic_prefix, scores, *pinned)
    capsys.readouterr()
    _assert_altered_scores_differ(broker, topic_prefix, scores, pinned, capsys)
    _assert_deleted_records_are_told(broker, topic_prefix, scores, pinned, capsys)


@only_when_thorough
def test_under_a_reference_that_changes_within_a_window_every_score_replays(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   windows        [ 5 )[ 6 )[ 7 )[ 8 )
    #   in force       v1 v1 v1 v1|v2 v2 v2      | announced from: within 6, so 7 is the first under v2
    make_topics(broker.bootstrap, topic_prefix, partitions=3)
    first = _first_ms()
    versions = {}
    for i, model in enumerate(MODELS):
        old = small_reference(tmp_path, model, seed=i)
        new = small_reference(tmp_path, model, seed=i + 10, layers=("fc", "conv"))
        versions[model] = (load(old).id, load(new).id)
        _announce(broker, topic_prefix, old, 0)
        _announce(broker, topic_prefix, new, first + 6_500)
    _send(broker, topic_prefix, _stream(first))
    with start(broker.bootstrap, topic_prefix, tmp_path, k=K) as processor:
        await_until(lambda: _is_complete(broker, topic_prefix), "every window was scored")
        assert processor.drain() == 0
    scores = scores_of(broker.bootstrap, topic_prefix)

    for score in scores:
        old_id, new_id = versions[score.model]
        assert score.reference == (new_id if score.window.start_ms >= first + 7_000 else old_id)
    _assert_all_replay(broker, topic_prefix, scores)


@only_when_thorough
def test_after_a_rebalance_every_score_replays(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   w0   p0 p1 p2 ───────────┊ p0 p1 ─────────
    #   w1            joins ─────┊ p2 ────────────
    make_topics(broker.bootstrap, topic_prefix, partitions=3)
    references = [small_reference(tmp_path, model, seed=i) for i, model in enumerate(MODELS)]
    records = _stream()
    half = len(records) // 2
    options = {"reference": references, "k": K}
    _send(broker, topic_prefix, records[:half])
    with start(broker.bootstrap, topic_prefix, tmp_path, name="w0", **options) as first:
        await_until(lambda: first.log.count("window_closed") >= 5, "some windows closed")
        with start(broker.bootstrap, topic_prefix, tmp_path, name="w1", **options) as second:
            await_until(lambda: "partitions assigned" in second.log, "the second joined", timeout_s=90)
            assert "partitions revoked" in first.log
            _send(broker, topic_prefix, records[half:])
            await_until(lambda: _is_complete(broker, topic_prefix), "every window was scored")
            await_until(lambda: "processor started" in second.log, "signals are heeded")
            assert [first.drain(), second.drain()] == [0, 0]

    pinned = [text for folder in references for text in ("--reference", str(folder))]
    _assert_all_replay(broker, topic_prefix, scores_of(broker.bootstrap, topic_prefix), *pinned)


def _assert_all_replay(broker: KraftBroker, prefix: str, scores: Sequence[WindowScore], *arguments: str) -> None:
    assert len({(score.model, score.window.start_ms) for score in scores}) == len(scores) == len(MODELS) * WINDOWS
    assert sum(score.counts.duplicate for score in scores) > 0, "frames were repeated"
    assert sum(score.counts.late_since_previous for score in scores) > 0, "rows were late"
    assert all(score.counts.seen > K == score.counts.tested for score in scores), "full windows were sampled"
    at = ("--bootstrap", broker.bootstrap, "--prefix", prefix)
    assert _replay(scores, "--topic-scan", *at, *arguments) == 0
    rejecting = [score for score in scores if score.rejected]
    assert len(rejecting) >= len(MODELS), "shifted windows reject"
    assert _replay(rejecting, *(arguments or at)) == 0


def _assert_altered_scores_differ(
    broker: KraftBroker,
    prefix: str,
    scores: Sequence[WindowScore],
    pinned: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    at = ("--topic-scan", "--bootstrap", broker.bootstrap, "--prefix", prefix)
    score = scores[-1]
    assert score.source is not None
    assert score.joint is not None
    p = 1.0 if score.joint.p_value < 0.5 else 0.05
    altered = {
        "p": {"joint": score.joint.model_copy(update={"p_value": p})},
        "offsets": {"source": score.source.model_copy(update={"first_offset": score.source.first_offset + 1})},
        "duplicate records": {"counts": score.counts.model_copy(update={"duplicate": 99})},
    }
    for name, change in altered.items():
        assert _replay([score.model_copy(update=change)], "--json", *at, *pinned) == 1
        checks = json.loads(capsys.readouterr().out)["checks"]
        assert name in [check["name"] for check in checks if not check["agrees"]]
    assert _replay([score], *at, *pinned) == 0


def _assert_deleted_records_are_told(
    broker: KraftBroker,
    prefix: str,
    scores: Sequence[WindowScore],
    pinned: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = scores[-1].source
    assert source is not None
    place = TopicPartition(source.topic, source.partition, source.first_offset + 1)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for answer in admin.delete_records([place]).values():
        answer.result()
    capsys.readouterr()
    assert _replay([scores[-1]], "--topic-scan", "--bootstrap", broker.bootstrap, "--prefix", prefix, *pinned) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert f"no longer holds offsets {source.first_offset} to {source.first_offset}" in told
    assert "replay from the score's evidence" in told


def _replay(scores: Sequence[WindowScore], *arguments: str) -> int:
    path = Path("scores.jsonl")
    path.write_text("".join(score.model_dump_json() + "\n" for score in scores))
    return run(["replay", str(path), "--device", "cpu", *TIMES, *arguments])


def _announce(broker: KraftBroker, prefix: str, folder: Path, effective_from_ms: int) -> None:
    reference = load(folder)
    pointer = ReferencePointer(
        model=reference.manifest.model,
        version=reference.id.version,
        uri=folder.as_uri(),
        sha256=reference.id.sha256,
        effective_from_ms=effective_from_ms,
    )
    record = (pointer.key.encode(), pointer.model_dump_json().encode())
    produce(broker.bootstrap, REFERENCES.full_name(prefix), [record])


def _first_ms() -> int:
    return now_ms() // 1_000 * 1_000 - 600_000


def _stream(first: int | None = None) -> list[tuple[str, bytes]]:
    """Windows of 36 rows a model, the last third of them shifted, and what disturbs them."""
    first, chance = first or _first_ms(), random.Random(7)
    records: list[tuple[str, bytes]] = []
    for window in range(WINDOWS):
        sent = []
        for model in MODELS:
            for part in range(3):
                times = [first + window * 1_000 + chance.randrange(1_000) for _ in range(12)]
                if window > 2 and part == 1:
                    times[0] -= 5_000  # late
                if window < WINDOWS - 1 and part == 2:
                    times[1] = first + window * 1_000 + 1_050  # the next window's
                if part == 0:
                    times[2] = first + 10_000_000  # years from now, as the log goes
                name = f"{model}/{window}/{part}"
                layers = {"fc": WIDTH, "conv": WIDTH}
                frame = frame_at(model, times, name, shift=2.0 if window >= 8 else 0.0, layers=layers)
                sent.append((model, frame.encode()))
        chance.shuffle(sent)
        records += [*sent, chance.choice(sent), (chance.choice(MODELS), b"poison")]
    return records + [(model, Heartbeat(model, now_ms()).encode()) for model in MODELS]


def _send(broker: KraftBroker, prefix: str, records: Sequence[tuple[str, bytes]]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "partitioner": "murmur2_random"})
    for model, value in records:
        producer.produce(ACTIVATIONS.full_name(prefix), value, model)
    assert producer.flush(30) == 0


def _is_complete(broker: KraftBroker, prefix: str) -> bool:
    return len(scores_of(broker.bootstrap, prefix)) >= len(MODELS) * WINDOWS
