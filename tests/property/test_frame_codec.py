"""For every frame: decode(encode(frame)) is the frame. For all other bytes: `FrameInvalid`, and no memory taken."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from tests.support.frames import frame_id, raw_frame

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame, Heartbeat, _decoded, concat, decode
from hydrophone.schemas.origins import Origin

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INT64 = st.integers(-(2**63), 2**63 - 1)
MODELS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._@:/-]{0,20}\Z")
FLOATS = st.sampled_from([np.float32, np.float16])
LIMIT_BYTES = 1 << 20


@st.composite
def frames(draw: Callable[..., Any]) -> Frame:
    rows = draw(st.integers(1, 5))

    def matrix() -> Any:
        return draw(st_numpy.arrays(draw(FLOATS), (rows, draw(st.integers(1, 4)))))

    def whole() -> Any:
        return draw(st_numpy.arrays(np.int64, rows, elements=INT64))

    def maybe(value: Any) -> Any:
        return value if draw(st.booleans()) else None

    def texts(of: st.SearchStrategy[Any]) -> Any:
        return draw(st.lists(of, min_size=rows, max_size=rows))

    origins = [Origin(frame_id(i), i * 7, i - 1, i - 1) for i in range(rows)]
    return Frame(
        draw(MODELS),
        {name: matrix() for name in draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))},
        event_time_ms=whole(),
        frame_id=str(draw(st.uuids())),
        sample_ids=maybe(texts(TEXT)),
        client_ids=maybe(texts(st.none() | TEXT)),
        attack=maybe(texts(st.none() | TEXT)),
        output=maybe(matrix()),
        predicted=maybe(whole()),
        label=maybe(whole()),
        uncertainty=maybe({"entropy": draw(st_numpy.arrays(np.float32, rows))}),
        origins=maybe(origins),
    )


def assert_same(one: Frame, other: Frame) -> None:
    for name in ("model", "frame_id", "sample_ids", "client_ids", "attack", "origins"):
        assert getattr(one, name) == getattr(other, name), name
    tensors, others = dict(one._tensors()), dict(other._tensors())
    assert tensors.keys() == others.keys()
    for name, values in tensors.items():
        assert values.dtype == others[name].dtype
        assert values.shape == others[name].shape
        assert np.ascontiguousarray(values).tobytes() == np.ascontiguousarray(others[name]).tobytes(), name


@given(frames())
def test_every_frame_comes_back_bit_by_bit(frame: Frame) -> None:
    again = decode(frame.encode())
    assert isinstance(again, Frame)
    assert_same(again, frame)
    assert again.encode() == frame.encode()


@given(frames(), st.data())
def test_rows_taken_apart_and_joined_are_the_rows(frame: Frame, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(frame)))
    parts = [frame.take(np.arange(cut)), frame.take(np.arange(cut, len(frame)))] if cut < len(frame) else [frame]
    joined = concat(parts)
    assert joined.row_origins() == frame.row_origins()
    for name, values in frame.layers.items():
        assert joined.layers[name].tobytes() == np.ascontiguousarray(values).tobytes()


@given(MODELS, INT64)
def test_every_heartbeat_comes_back(model: str, event_time_ms: int) -> None:
    beat = Heartbeat(model, event_time_ms)
    assert decode(beat.encode()) == beat


# Bytes that are no frame ---------------------------------------------------------------------------------------------


def said(read: Callable[[bytes], Frame | Heartbeat], data: bytes) -> Frame | Heartbeat | tuple[str, str]:
    try:
        return read(data)
    except FrameInvalid as refusal:
        return refusal.reason, refusal.detail


def outcome(data: bytes) -> None:
    """A frame, a heartbeat or `FrameInvalid`, and the same without the layouts that are known; anything else fails."""
    found, expected = said(decode, data), said(_decoded, data)
    if not isinstance(found, Frame):
        assert found == expected
        return
    assert isinstance(expected, Frame)
    assert_same(found, expected)
    found.encode()
    found.finite_rows()
    found.classes()


@given(st.binary(max_size=200))
@example(b"")
@example(bytes(8))
@example(b"\xff" * 64)
def test_no_bytes_do_anything_but_be_refused(data: bytes) -> None:
    outcome(data)


@settings(max_examples=300)
@given(frames(), st.data())
def test_a_frame_with_flipped_cut_or_added_bytes_is_a_frame_or_refused(frame: Frame, data: st.DataObject) -> None:
    damaged = bytearray(frame.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1)) if damaged else 0
        match data.draw(st.sampled_from(["flip", "cut", "insert", "swap"])):
            case "flip" if damaged:
                damaged[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del damaged[at:]
            case "insert":
                damaged[at:at] = data.draw(st.binary(min_size=1, max_size=8))
            case _:
                damaged[at : at + 2] = damaged[at : at + 2][::-1]
    outcome(bytes(damaged))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["F32", "I64", "BF16"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
TENSORS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "U8"]) | JSON,
        "shape": st.lists(st.integers(-1, 3) | st.sampled_from([2**31, 2**62, 2**63, 10**30]), max_size=3) | JSON,
        "data_offsets": st.tuples(st.integers(-1, 64), st.integers(-1, 64)) | JSON,
    }
)
NAMES = st.sampled_from(["layer.fc", "layer.", "output", "predicted", "event_time_ms", "label", "uncertainty.x"]) | TEXT
METADATA = st.fixed_dictionaries(
    {"schema": st.just("1"), "kind": st.sampled_from(["data", "heartbeat"]), "model": st.just("m")},
    optional={
        "frame_id": st.just(frame_id(0)) | TEXT,
        "event_time_ms": TEXT,
        "sample_ids": JSON.map(str) | TEXT,
        "client_ids": JSON.map(str),
        "origins": TEXT,
    },
)


@settings(max_examples=300)
@given(st.dictionaries(NAMES, TENSORS | JSON, max_size=4), METADATA | JSON, st.binary(max_size=64))
def test_a_header_that_lies_is_refused(tensors: dict[str, object], metadata: object, body: bytes) -> None:
    header = {"__metadata__": metadata} | tensors
    outcome(raw_frame(header, body))
    outcome(raw_frame(json.dumps(header, separators=(",", ":")).encode(), body))  # as the encoder writes


@pytest.mark.parametrize("size", [2**20, 2**34, 2**62])
def test_a_claim_is_not_believed_before_the_bytes_are_there(size: int) -> None:
    header = {
        "__metadata__": {"schema": "1", "kind": "data", "model": "m", "frame_id": frame_id(0)},
        "layer.fc": {"dtype": "BF16", "shape": [size, 4], "data_offsets": [0, size * 8]},
    }
    data = raw_frame(header, bytes(64))
    tracemalloc.start()
    with pytest.raises(FrameInvalid):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < LIMIT_BYTES
