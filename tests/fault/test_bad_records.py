"""Whatever a record holds, nothing is lost and nothing is stuck.

Among good frames come poison bytes, truncated frames, tombstones, frames under a wrong key, with a missing layer or
one of a wrong width, rows that are not finite, dated in the future, before 1970 or too late, repeated frames, records
as large as the topic takes, and one that is small only because it was compressed. Every record and row is found again:
in a score's counts, in `late`, or in `deadletter` with its original bytes and headers. The processor goes on.
"""

import json
import uuid
from pathlib import Path

import numpy as np
import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.batch import BatchRules, batch_of
from tests.support.broker import Record, produce, read_all
from tests.support.frames import frame_id
from tests.support.processor import (
    SAMPLING_KEY,
    WIDTH,
    await_until,
    frame_at,
    make_topics,
    scores_of,
    small_reference,
    start,
)
from tests.support.reckoning import reckon

from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.headers import dead_letter_from_headers
from hydrophone.schemas.operations import DeadLetter
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import ACTIVATIONS, DEADLETTER, LATE

pytestmark = pytest.mark.broker

MODEL = "bad"
K = 32
RULES = BatchRules(1_000, 800, 500, K, SAMPLING_KEY, {MODEL: {"fc": WIDTH}})
MIB = 1024 * 1024
LARGE = {"message.max.bytes": 10 * MIB}


def test_every_record_and_row_is_found_again(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   windows       [ 0 )[ 1 )[ 2 )[ 3 ) ...      one bad thing in each, among five good frames
    make_topics(broker.bootstrap, topic_prefix)
    topic = ACTIVATIONS.full_name(topic_prefix)
    reference = small_reference(tmp_path, MODEL)
    first = now_ms() // 1_000 * 1_000 - 120_000
    bad = _bad_records(first)
    with start(broker.bootstrap, topic_prefix, tmp_path, reference=reference, k=K) as processor:
        for number, (key, value) in enumerate(bad):
            good = [frame_at(MODEL, [first + number * 1_000 + 7 * i] * 5, f"{number}/{i}").encode() for i in range(5)]
            records: list[tuple[bytes | None, bytes | None]] = [(MODEL.encode(), data) for data in good]
            records.insert(3, (key, value))
            records.append(records[0])
            produce(broker.bootstrap, topic, records, headers={"traceparent": b"not one", "mine": b"kept"}, conf=LARGE)
        bomb = frame_at(MODEL, [now_ms()], "bomb").encode() + bytes(5 * MIB)
        produce(
            broker.bootstrap,
            topic,
            [(MODEL.encode(), bomb)],
            conf=LARGE | {"compression.type": "gzip"},
        )
        produce(broker.bootstrap, topic, [(MODEL.encode(), Heartbeat(MODEL, now_ms()).encode())])
        log = read_all(broker.bootstrap, topic)
        batch = batch_of(log, RULES)
        await_until(
            lambda: len(scores_of(broker.bootstrap, topic_prefix)) >= len(batch.windows), "every window was scored"
        )
        assert processor.drain() == 0

    found = reckon(broker.bootstrap, topic_prefix, RULES, {MODEL: reference})
    assert not found.faults, found.faults
    scores = found.scores

    letters = read_all(broker.bootstrap, DEADLETTER.full_name(topic_prefix))
    late = read_all(broker.bootstrap, LATE.full_name(topic_prefix))
    by_offset = {record.offset: record for record in log}
    for record in letters:
        _assert_original(record, by_offset[_letter(record).offset])
    assert [json.loads(r.headers["rows"] or "") for r in late] == [list(rows) for rows in batch.late.values()]
    assert [r.value for r in late] == [by_offset[offset].value for _, offset in batch.late]

    counts = [score.counts for score in scores]
    rows = sum(count.seen + count.rejected + count.quarantined + count.late_since_previous for count in counts)
    accepted = len(log) - batch.duplicates - len(batch.dead) - batch.heartbeats
    assert accepted > 100
    assert rows == sum(w.seen for w in batch.windows.values()) + batch.rejected + batch.quarantined + sum(
        map(len, batch.late.values())
    )


def _bad_records(first: int) -> list[tuple[bytes | None, bytes | None]]:
    """One for each window, in the order of the windows."""
    model = MODEL.encode()

    def at(window: int, rows: int = 4) -> list[int]:
        return [first + window * 1_000 + 500] * rows

    def changed(window: int, value: float) -> bytes:
        frame = frame_at(MODEL, at(window), f"bad/{window}")
        values = frame.layers["fc"].copy()
        values[1, 2] = value
        return Frame(MODEL, {"fc": values}, event_time_ms=frame.event_time_ms, frame_id=frame.frame_id).encode()

    whole = frame_at(MODEL, at(0), "whole").encode()
    wide = np.zeros((1, 260_000), np.float32)
    large = Frame(
        MODEL,
        {"fc": np.zeros((1, WIDTH), np.float32), "other": wide},
        event_time_ms=np.array(at(13, 1)),
        frame_id=frame_id("large"),
    )
    wide_output = Frame(
        MODEL,
        {"fc": np.ones((3, WIDTH), np.float32)},
        event_time_ms=np.array(at(16, 3)),
        frame_id=frame_id("output"),
        output=np.full((3, 7), 1 / 7, np.float32),
    )
    return [
        (model, b"poison"),
        (model, whole[: len(whole) // 2]),
        (model, None),
        (b"somebody else", frame_at(MODEL, at(3), "wrong key").encode()),
        (model, frame_at(MODEL, at(4), "no layer", layers={"gc": WIDTH}).encode()),
        (model, frame_at(MODEL, at(5), "wide", layers={"fc": WIDTH + 1}).encode()),
        (model, changed(6, np.nan)),
        (model, changed(7, np.inf)),
        (model, changed(8, float(np.finfo(np.float32).max))),
        (model, frame_at(MODEL, [*at(9), now_ms() + 60_000], "future").encode()),
        (model, frame_at(MODEL, [now_ms() + 86_400_000], "tomorrow").encode()),
        (model, frame_at(MODEL, [*at(11), -1, -(2**62)], "before time").encode()),
        (model, frame_at(MODEL, [*at(12), first], "partly late").encode()),
        (model, large.encode()),
        (model, frame_at(MODEL, at(1), "late").encode()),
        (None, frame_at(MODEL, at(15), "no key").encode()),
        (model, wide_output.encode()),
        (model, Heartbeat(MODEL, now_ms() + 3_600_000, str(uuid.uuid4())).encode()),
        (model, b""),
    ]


def _letter(record: Record) -> DeadLetter:
    return dead_letter_from_headers(
        [(name, value if isinstance(value, bytes) else None) for name, value in record.headers.items()]
    )


def _assert_original(letter: Record, original: Record) -> None:
    assert letter.key == original.key
    if len(original.value or b"") < MIB:
        assert letter.value == original.value
    else:
        assert letter.value is None, "too large to be sent again: its place says where it is"
        assert letter.headers["omitted-bytes"] == str(len(original.value or b"")).encode()
    assert {name: letter.headers[name] for name in original.headers} == original.headers
