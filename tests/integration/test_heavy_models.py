"""A heavy model, spread over the partitions of a real broker, gets the very scores it would get unspread.

- Two processors share four partitions and the merging; one is killed with SIGKILL in between. The model has four
  shards, then two, while they run. Every window is scored once, with the content and p-value of a batch over the log,
  which are those of a processor that reads the same frames under one key.
- Windows before the first plan are of one stage, those from it on are merged, and the memory that alarms are decided by
  is handed over: it has the p-values of windows of both.
- Partitions that hold nothing of the model, or nothing at all, hold its windows up no longer than silence lasts; either
  stage may be a process of its own.
- A shard's key where no plan is: a dead letter, and an event that says so.
"""

import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.batch import BatchRules, batch_of
from tests.support.broker import produce, read_all
from tests.support.processor import (
    SAMPLING_KEY,
    WIDTH,
    Processor,
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
from tests.support.thorough import only_when_thorough

from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.operations import ModelState, OperationalEvent, ShardPlan
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.clock import now_ms
from hydrophone.streams.kafka.delivery import send
from hydrophone.streams.outputs import Output
from hydrophone.streams.shards import ShardPlans
from hydrophone.streams.topics import ACTIVATIONS, CONTROL, DEADLETTER, EVENTS, STATE

pytestmark = [pytest.mark.broker, pytest.mark.slow]

MODEL = "heavy"
PARTITIONS = 4
WINDOWS = 24
FRAMES = 12
ROWS = 8
K = 40
WINDOW_MS = 1_000


def announce(bootstrap: str, prefix: str, plans: Iterable[ShardPlan]) -> None:
    """As `hydrophone shards set` does, but for event times that are long past."""
    for plan in plans:
        output = Output(CONTROL.full_name(prefix), plan.key.encode(), plan.model_dump_json().encode(), [])
        send({"bootstrap.servers": bootstrap}, output)


def frames_of(first_ms: int, window: int) -> list[Frame]:
    """Rows spread over the window."""
    times = np.random.default_rng(window).integers(0, WINDOW_MS, (FRAMES, ROWS)) + first_ms + window * WINDOW_MS
    return [frame_at(MODEL, times[part].tolist(), f"{window}/{part}") for part in range(FRAMES)]


def end_of(bootstrap: str, prefix: str, end_ms: int) -> None:
    """Time passes on every partition."""
    for number in range(PARTITIONS):
        record = (MODEL.encode(), Heartbeat(MODEL, end_ms, str(uuid.uuid4())).encode())
        produce(bootstrap, ACTIVATIONS.full_name(prefix), [record], partition=number)


def worker(broker: KraftBroker, prefix: str, folder: Path, reference: Path, name: str) -> Processor:
    return start(broker.bootstrap, prefix, folder, name=f"{prefix}{name}", reference=reference, k=K)


def told(scores: list[WindowScore]) -> dict[int, tuple[object, ...]]:
    """What must not depend on how a window's rows came."""
    return {
        score.window.start_ms: (
            score.id,
            score.counts.seen,
            score.content_sha256,
            score.joint,
            score.layers,
            [(s.frame_id, s.row, s.score) for s in score.suspects],
        )
        for score in scores
    }


@only_when_thorough
@pytest.mark.timeout(400)
def test_shards_change_no_score(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   windows   0 ... 5    6 ... 15    16 ... 23
    #   shards    none       4           2             both plans are told while processors run
    #   a         ────────────────✗
    #   b         ────────────────────────────────
    bootstrap, reference = broker.bootstrap, small_reference(tmp_path, MODEL)
    first_ms = now_ms() // WINDOW_MS * WINDOW_MS - 600_000
    plans = [
        ShardPlan(model=MODEL, shards=4, effective_from_ms=first_ms + 6 * WINDOW_MS),
        ShardPlan(model=MODEL, shards=2, effective_from_ms=first_ms + 16 * WINDOW_MS),
    ]
    sharded, plain = f"{topic_prefix}s.", f"{topic_prefix}p."
    for prefix in (sharded, plain):
        make_topics(bootstrap, prefix, partitions=PARTITIONS)

    def publish(windows: range) -> None:
        keys = ShardPlans(plans)
        for window in windows:
            frames = frames_of(first_ms, window)
            spread = [(keys.key(MODEL, f.frame_id, int(f.event_time_ms.min())).encode(), f.encode()) for f in frames]
            produce(bootstrap, ACTIVATIONS.full_name(sharded), spread)
            produce(bootstrap, ACTIVATIONS.full_name(plain), [(MODEL.encode(), f.encode()) for f in frames])
            for prefix in (sharded, plain):
                end_of(bootstrap, prefix, first_ms + window * WINDOW_MS)

    with (
        worker(broker, sharded, tmp_path, reference, "a") as a,
        worker(broker, sharded, tmp_path, reference, "b") as b,
        worker(broker, plain, tmp_path, reference, "p") as unsharded,
    ):
        await_until(lambda: all("partitions assigned" in w.log for w in (a, b, unsharded)), "they joined")
        announce(bootstrap, sharded, plans[:1])
        publish(range(6))
        await_until(lambda: all("shards announced" in w.log for w in (a, b)), "they heard of it")
        publish(range(6, 12))
        await_until(lambda: len(scores_of(bootstrap, sharded)) >= 8, "merged windows are scored")
        announce(bootstrap, sharded, plans[1:])
        publish(range(12, 18))
        a.kill()
        publish(range(18, WINDOWS))
        for prefix in (sharded, plain):
            end_of(bootstrap, prefix, first_ms + (WINDOWS + 5) * WINDOW_MS)
        await_until(lambda: len(scores_of(bootstrap, sharded)) >= WINDOWS, "all merged", timeout_s=120)
        await_until(lambda: len(scores_of(bootstrap, plain)) >= WINDOWS, "all scored", timeout_s=120)
        assert (b.drain(), unsharded.drain()) == (0, 0)

    scores = scores_of(bootstrap, sharded)
    assert Counter(s.window.start_ms for s in scores) == Counter(first_ms + n * WINDOW_MS for n in range(WINDOWS))
    assert told(scores) == told(scores_of(bootstrap, plain))
    _assert_as_batch(bootstrap, sharded, scores, plans, reference)
    for score in scores:
        merged = score.window.start_ms >= plans[0].effective_from_ms
        assert score.source is not None
        assert (len(score.source.parts) > 1) == merged, score.source
    told_file = tmp_path / "scores.jsonl"
    told_file.write_text("\n".join(score.model_dump_json() for score in scores))
    times = ("--lateness-ms", 800, "--future-skew-ms", 500, "--expected-delay-ms", 300)
    at = ("--bootstrap", bootstrap, "--prefix", sharded, "--reference", reference, "--device", "cpu")
    replayed = cli("replay", told_file, "--topic-scan", *at, *times, folder=tmp_path, timeout_s=120)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    (memory,) = {s.model_dump_json() for s in _memories(bootstrap, sharded)[-1:]}
    assert memory == _memories(bootstrap, plain)[-1].model_dump_json(), "alarms are decided by the same memory"


def _assert_as_batch(
    bootstrap: str, prefix: str, scores: list[WindowScore], plans: list[ShardPlan], reference: Path
) -> None:
    log = read_all(bootstrap, ACTIVATIONS.full_name(prefix))
    rules = BatchRules(
        WINDOW_MS, 800, 500, K, SAMPLING_KEY, {MODEL: {"fc": WIDTH}}, sharded_from={MODEL: plans[0].effective_from_ms}
    )
    batch = batch_of(log, rules)
    loaded = load(reference)
    for score in scores:
        expected = batch.windows[MODEL, score.window.start_ms]
        result = loaded.test(expected.sampled_rows(K))
        assert score.joint is not None
        assert score.joint.p_value == result.p_value
        assert score.counts.seen == expected.seen == FRAMES * ROWS
        assert score.content_sha256 == result.content_sha256(window=score.window, seen=expected.seen, k=K)
        assert score.source is not None
        assert {part.partition for part in score.source.parts} in (set(), {p for *_, p, _ in expected.rows})


def _memories(bootstrap: str, prefix: str) -> list[ModelState]:
    records = [r for r in read_all(bootstrap, STATE.full_name(prefix)) if r.key == MODEL.encode()]
    assert len({record.partition for record in records}) == 1, "a model's memory has one place"
    return [ModelState.model_validate_json(record.value or b"") for record in records]


def test_an_unplanned_shard_is_refused_aloud(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    bootstrap, reference = broker.bootstrap, small_reference(tmp_path, MODEL)
    make_topics(bootstrap, topic_prefix, partitions=PARTITIONS)
    begin = now_ms() // WINDOW_MS * WINDOW_MS - 600_000
    frames = [frame_at(MODEL, [begin] * 30, name) for name in range(2)]
    keys = [MODEL, f"{MODEL}#1"]
    with worker(broker, topic_prefix, tmp_path, reference, "a") as only:
        records = [(key.encode(), frame.encode()) for key, frame in zip(keys, frames, strict=True)]
        produce(bootstrap, ACTIVATIONS.full_name(topic_prefix), records)
        end_of(bootstrap, topic_prefix, begin + 10 * WINDOW_MS)
        await_until(lambda: len(scores_of(bootstrap, topic_prefix)) == 1, "what came under the plain key is scored")
        await_until(
            lambda: bool(read_all(bootstrap, DEADLETTER.full_name(topic_prefix))), "what did not is a dead letter"
        )
        assert only.drain() == 0
    (letter,) = read_all(bootstrap, DEADLETTER.full_name(topic_prefix))
    assert letter.headers["hydrophone_reason"] == b"unplanned_shard"
    (event,) = events_of(bootstrap, topic_prefix, EVENTS, OperationalEvent)
    assert (event.kind, event.model) == ("unplanned_shard", MODEL)


@pytest.mark.parametrize("stages", [("all",), ("windows", "merge")])
def test_silence_closes_merged_windows_by_the_clock(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path, stages: tuple[str, ...]
) -> None:
    # Two of four partitions hold records; the others never did, and no heartbeat comes.
    bootstrap, reference = broker.bootstrap, small_reference(tmp_path, MODEL)
    make_topics(bootstrap, topic_prefix, partitions=PARTITIONS)
    announce(bootstrap, topic_prefix, [ShardPlan(model=MODEL, shards=2, effective_from_ms=0)])
    begin = now_ms() // WINDOW_MS * WINDOW_MS
    frames = [frame_at(MODEL, [begin] * 30, name) for name in range(2)]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                start(bootstrap, topic_prefix, tmp_path, name=s, reference=reference, stage=s, idle_ms=500)
            )
            for s in stages
        ]
        records = [(f"{MODEL}#{shard}".encode(), frame.encode()) for shard, frame in enumerate(frames)]
        produce(bootstrap, ACTIVATIONS.full_name(topic_prefix), records)
        await_until(lambda: bool(scores_of(bootstrap, topic_prefix)), "it is scored")
        assert [worker.drain() for worker in workers] == [0] * len(workers)

    (score,) = scores_of(bootstrap, topic_prefix)
    assert (score.window.start_ms, score.counts.seen, score.status) == (begin, 60, "tested")


def test_plans_are_set_for_windows_to_come_and_shown(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    make_topics(broker.bootstrap, topic_prefix, partitions=PARTITIONS)
    where = ("--bootstrap", broker.bootstrap, "--prefix", topic_prefix)

    too_early = cli("shards", "set", MODEL, 4, "--effective-from", "2024-01-01T00:00:00", *where, folder=tmp_path)
    done = cli("shards", "set", MODEL, 4, *where, folder=tmp_path)
    shown = cli("shards", "show", "--json", *where, folder=tmp_path)

    assert too_early.returncode == 3
    assert "`--effective-from` must be" in too_early.stderr
    assert done.returncode == 0, done.stderr
    plan = ShardPlan.model_validate_json(shown.stdout)
    assert (plan.model, plan.shards, plan.effective_from_ms % 60_000) == (MODEL, 4, 0)
    assert plan.effective_from_ms >= now_ms() + 60_000
