"""Summaries survive the wire, in as many records as it takes; what is no summary is refused, whatever it is."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.frames import frame_id

from hydrophone.schemas.errors import RecordRejected
from hydrophone.schemas.frame import Frame, concat
from hydrophone.schemas.partials import SummaryChunk, WatermarkMarker
from hydrophone.schemas.score import Counts
from hydrophone.streams.effects import TimePassed, WindowClosed
from hydrophone.streams.partials import Chunk, Wire, encode_marker, encode_summary, read_partial, summary_of
from hydrophone.streams.record import Record

COUNTS = Counts(seen=900, tested=7, rejected=1, quarantined=2, duplicate=3, late_since_previous=4, ignored_tensors=5)


def summary(rows: int, width: int = 3) -> WindowClosed:
    def frame(name: int) -> Frame:
        rng = np.random.default_rng(name)
        output = rng.random((rows, 2)).astype(np.float16)
        return Frame(
            "m",
            {"a": rng.random((rows, width)).astype(np.float32), "b": rng.random((rows, 1)).astype(np.float16)},
            event_time_ms=np.arange(rows),
            frame_id=frame_id(name),
            output=output,
            predicted=output.argmax(axis=1),
            sample_ids=[f"{name}/{row} é" for row in range(rows)],
            client_ids=[None] * rows,
            uncertainty={"entropy": rng.random(rows)},
        )

    frames = [frame(name).with_origins(frame(name).row_origins(name, 7 + name)) for name in range(2)] if rows else []
    sample = concat(frames) if frames else None
    return WindowClosed("m", 60_000, 120_000, 3, 17, 40, COUNTS, sample, ("00-ab-cd-01",))


def records(wires: list[Wire]) -> list[Record]:
    return [Record("p", 0, n, 0, key, value, tuple(headers)) for n, (key, value, headers) in enumerate(wires)]


def back(wires: list[Wire]) -> WindowClosed:
    chunks = [read_partial(record) for record in records(wires)]
    return summary_of([chunk for chunk in chunks if isinstance(chunk, Chunk)])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(2_600, 9_000))
def test_a_summary_survives_the_wire_in_any_number_of_records(rows: int, width: int, chunk_bytes: int) -> None:
    told = summary(rows, width)

    wires = encode_summary(told, chunk_bytes)

    assert all(key == b"m" and len(value) <= chunk_bytes for key, value, _ in wires)
    found = back(wires)
    assert replace(found, sample=None) == replace(told, sample=None)
    assert found.sample is not None
    assert told.sample is not None
    assert list(found.sample.row_origins()) == list(told.sample.row_origins())
    again = replace(found.sample, frame_id=told.sample.frame_id)
    assert again.encode() == told.sample.encode()


def test_a_summary_without_rows_is_one_record() -> None:
    told = summary(0)

    (wire,) = encode_summary(told)

    assert wire[1] == b""
    assert back([wire]) == told


def test_a_marker_survives_the_wire() -> None:
    (record,) = records([encode_marker(TimePassed(3, 60_000), 12)])

    assert record.key is None
    assert read_partial(record) == WatermarkMarker(partition=3, partitions=12, watermark_ms=60_000)


kinds = st.sampled_from((None, b"", b"nonsense", SummaryChunk.event_type.encode(), WatermarkMarker.event_type.encode()))


@settings(deadline=None, max_examples=200)
@given(kinds, st.binary(max_size=60) | st.none(), st.binary(max_size=60) | st.none())
def test_anything_else_is_refused_and_nothing_worse(
    kind: bytes | None, said: bytes | None, value: bytes | None
) -> None:
    with pytest.raises(RecordRejected):
        read_partial(Record("p", 0, 0, 0, b"m", value, (("ce_type", kind), ("summary", said))))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_summary_is_refused_or_read_and_nothing_worse(data: st.DataObject) -> None:
    (wire,) = encode_summary(summary(3))
    (record,) = records([wire])
    value, said = bytearray(record.value or b""), bytearray(dict(record.headers)["summary"] or b"")
    for target in (value, said):
        for place in data.draw(st.lists(st.integers(0, len(target) - 1), max_size=3)):
            target[place] = data.draw(st.integers(0, 255))
    damaged = record._replace(value=bytes(value), headers=(*record.headers[:1], ("summary", bytes(said))))

    with contextlib.suppress(RecordRejected):
        assert read_partial(damaged)


def test_rows_of_another_model_or_without_origins_are_no_summary() -> None:
    (wire,) = encode_summary(summary(3))
    (record,) = records([wire])
    other = Frame("other", {"a": np.zeros((1, 3), np.float32)}, event_time_ms=np.array(0))
    plain = Frame("m", {"a": np.zeros((1, 3), np.float32)}, event_time_ms=np.array(0))

    for frame in (other.with_origins(other.row_origins()), plain):
        with pytest.raises(RecordRejected, match="with their origins make a summary"):
            read_partial(record._replace(value=frame.encode()))
