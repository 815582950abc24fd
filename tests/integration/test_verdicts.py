"""Rows that arrive are judged one by one, and each is told of once, whoever dies in between.

Frames of an honest client and of one that attacks go to one topic. Workers of the same name die with SIGKILL before
anything is sent, between produce and commit, and after the commit. In the end a reader of committed records finds one
`FrameVerdicts` for each accepted record, with all its rows, in the order of the log; the late ones too, duplicates and
refused ones not. The attacker's windows name it, and `tail verdicts` prints what a service would subscribe to.
"""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.batch import BatchRules, batch_of
from tests.support.broker import produce, read_all
from tests.support.processor import (
    SAMPLING_KEY,
    WIDTH,
    await_until,
    cli,
    events_of,
    frame_at,
    judging_reference,
    load,
    make_topics,
    scores_of,
    start,
)

from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.verdict import FrameVerdicts, verdict_id
from hydrophone.streams.clock import now_ms
from hydrophone.streams.replay import compare, from_evidence, judge_again
from hydrophone.streams.topics import ACTIVATIONS, VERDICTS

pytestmark = pytest.mark.broker

MODEL = "judged"
K = 48
RULES = BatchRules(1_000, 800, 500, K, SAMPLING_KEY, {MODEL: {"fc": WIDTH}})
POINTS = ("before-commit:2=kill", "after-produce:2=kill", "after-commit:2=kill")


def test_every_row_gets_one_verdict_whoever_is_killed(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   windows   [ 0 )[ 1 )[ 2 )[ 3 )[ 4 )[ 5 ) ... [ attacked )[ attacked )[ )
    #   workers   ──✗send ──produce✗commit ──commit✗ ──────────────────────
    make_topics(broker.bootstrap, topic_prefix)
    reference = judging_reference(tmp_path, MODEL)
    first = now_ms() // 1_000 * 1_000 - 100_000
    same = {"reference": reference, "k": K, "verdicts": "all", "instance_id": f"{topic_prefix}w"}
    same["kafka"] = "session.timeout.ms=6000"
    window = 0
    for number, point in enumerate(POINTS):
        with start(broker.bootstrap, topic_prefix, tmp_path, name=f"w{number}", failpoint=point, **same) as worker:
            await_until(lambda worker=worker: "partitions assigned" in worker.log, "it joined")  # type: ignore[misc]
            while not worker.has_ended():
                _send(broker, topic_prefix, first, window)
                window += 1
                if window > 60:
                    pytest.fail(f"it never came to {point}: {worker.log}")
                time.sleep(0.15)
            assert worker.returncode == -9, worker.log
    attacked = range(window, window + 2)
    for number in range(window, window + 3):
        _send(broker, topic_prefix, first, number, is_attacked=number in attacked)
    produce(
        broker.bootstrap, ACTIVATIONS.full_name(topic_prefix), [(MODEL.encode(), Heartbeat(MODEL, now_ms()).encode())]
    )
    log = read_all(broker.bootstrap, ACTIVATIONS.full_name(topic_prefix))
    batch = batch_of(log, RULES)
    with start(broker.bootstrap, topic_prefix, tmp_path, name="last", **same) as last:
        await_until(
            lambda: len(scores_of(broker.bootstrap, topic_prefix)) >= len(batch.windows), "every window's score"
        )
        assert last.drain() == 0, last.log

    told = events_of(broker.bootstrap, topic_prefix, VERDICTS, FrameVerdicts)
    places = [(event.source.partition, event.source.offset) for event in told]
    assert Counter(places) == Counter(batch.judged.keys()), "one for each accepted record"
    assert batch.late, "late ones are among them"
    assert batch.dead, "refused ones are not"
    assert batch.duplicates, "nor are those that came twice"
    for number in {partition for partition, _ in places}:
        assert (mine := [offset for partition, offset in places if partition == number]) == sorted(mine)
    frames = {(record.partition, record.offset): record.value for record in log}
    detectors = load(reference).samples
    assert detectors is not None
    for event, place in zip(told, places, strict=True):
        assert event.id == verdict_id(event.source, event.reference)
        assert tuple(verdict.row for verdict in event.verdicts) == batch.judged[place]
        expected = detectors.judge(Frame.decode(frames[place] or b""))
        assert [verdict.decision for verdict in event.verdicts] == [
            ("accept", "abstain", "reject")[expected.decision[verdict.row]] for verdict in event.verdicts
        ]
    rejected = Counter(v.client_id for event in told for v in event.verdicts if v.decision == "reject")
    assert rejected["mallory"] > 20
    assert rejected["alice"] < 0.03 * sum(len(event.verdicts) for event in told)

    scores = {score.window.start_ms: score for score in scores_of(broker.bootstrap, topic_prefix)}
    for number in attacked:
        score = scores[first + number * 1_000]
        assert {client.client_id: client.action for client in score.clients}["mallory"] in {"throttle", "block"}
        assert score.clients[0].client_id == "mallory", "the most urgent comes first"
        suspects = [suspect for suspect in score.suspects if suspect.verdict and suspect.verdict.decision == "reject"]
        assert suspects
        assert {suspect.client_id for suspect in suspects[:5]} == {"mallory"}
        if score.evidence is not None:
            rows = Frame.decode(Path(score.evidence.uri.removeprefix("file://")).read_bytes())
            again = judge_again(score, from_evidence(score, rows), load(reference))
            assert all(check.agrees for check in compare(score, again))
            assert again.clients == score.clients

    printed = cli(
        *("tail", "verdicts", "--bootstrap", broker.bootstrap, "--prefix", topic_prefix),
        *("--from-beginning", "--count", len(told), "--timeout", 20, "--json"),
        folder=tmp_path,
    )
    assert printed.returncode == 0, printed.stderr
    assert [json.loads(line)["id"] for line in printed.stdout.splitlines()] == [str(event.id) for event in told]


def _send(broker: KraftBroker, prefix: str, first: int, window: int, *, is_attacked: bool = False) -> None:
    """Four frames of an honest client, one twice, and one of another, which attacks if told to; poison; a late row."""
    at = first + window * 1_000
    frames = [frame_at(MODEL, [at + part] * 8, f"{window}/{part}", client="alice") for part in range(4)]
    frames.append(frames[0])
    shift = 4.0 if is_attacked else 0.0
    frames.append(frame_at(MODEL, [at + 9] * 12, f"{window}/other", client="mallory", shift=shift))
    if window > 3:
        frames.append(frame_at(MODEL, [at - 3_000, at + 5], f"{window}/late", client="alice"))
    records = [(MODEL.encode(), frame.encode()) for frame in frames]
    produce(broker.bootstrap, ACTIVATIONS.full_name(prefix), [*records, (MODEL.encode(), b"poison")])
