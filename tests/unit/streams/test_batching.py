from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrophone.schemas import Frame
from hydrophone.schemas.origins import Origin
from hydrophone.streams.batching import join, layout, owned, split


def frame_of(rows: Sequence[int], *, width: int = 3, ids: bool = True, **more: Any) -> Frame:
    """A frame whose first column, time and sample id all say which row it is."""
    layer = np.zeros((len(rows), width), np.float32)
    layer[:, 0] = rows
    names = [f"row-{row}" for row in rows] if ids else None
    return Frame("m", {"a": layer}, event_time_ms=np.array(rows, np.int64), sample_ids=names, **more)


def rows_of(frames: Sequence[Frame]) -> list[int]:
    return [int(row) for frame in frames for row in frame.layers["a"][:, 0]]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    width=st.integers(1, 200),
    max_bytes=st.integers(3_000, 20_000),
    id_length=st.integers(0, 300),
)
def test_join_and_split_keep_every_row_once_in_order_and_under_the_limit(
    sizes: list[int], width: int, max_bytes: int, id_length: int
) -> None:
    ends = np.cumsum(sizes)
    frames = [frame_of(range(end - size, end), width=width) for size, end in zip(sizes, ends, strict=True)]
    frames = [replace(f, sample_ids=[i.ljust(id_length, "x") for i in f.sample_ids or ()]) for f in frames]

    pieces = list(split(join(frames), max_bytes))

    assert all(piece.data is not None and len(piece.data) <= max_bytes for piece in pieces)
    decoded = [Frame.decode(piece.data) for piece in pieces if piece.data is not None]
    assert [len(frame) for frame in decoded] == [piece.rows for piece in pieces]
    assert rows_of(decoded) == list(range(sum(sizes)))
    assert [i.rstrip("x") for f in decoded for i in f.sample_ids or ()] == [f"row-{row}" for row in range(sum(sizes))]
    assert np.concatenate([f.event_time_ms for f in decoded]).tolist() == list(range(sum(sizes)))


def test_every_piece_is_a_frame_of_its_own() -> None:
    frame = frame_of(range(100), width=100)
    ids = {Frame.decode(piece.data).frame_id for piece in split(frame, 9_000) if piece.data is not None}
    assert len(ids) > 4
    assert frame.frame_id not in ids


def test_a_row_that_fits_into_no_frame_is_told_apart_and_the_others_go() -> None:
    frame = frame_of([0, 1, 2])
    frame = replace(frame, sample_ids=["a", "b" * 10_000, "c"])
    pieces = list(split(frame, 3_000))
    assert [(piece.rows, piece.data is None) for piece in pieces] == [(1, False), (1, True), (1, False)]


def test_join_fills_the_ids_of_frames_that_have_none() -> None:
    joined = join([frame_of([0, 1]), frame_of([2], ids=False), frame_of([3], client_ids=["eve"])])
    assert joined.sample_ids == ["row-0", "row-1", "", "row-3"]
    assert joined.client_ids == [None, None, None, "eve"]


def test_join_keeps_every_tensor() -> None:
    parts: dict[str, Any] = {
        "output": np.full((2, 4), 0.25, np.float32),
        "predicted": np.array([3, 1]),
        "label": np.array([0, 1]),
    }
    one = frame_of([0, 1], uncertainty={"entropy": np.ones(2, np.float32)}, **parts)
    joined = join([one, one])
    for name, part in parts.items():
        np.testing.assert_array_equal(getattr(joined, name), np.concatenate([part, part]))
    assert joined.uncertainty is not None
    assert joined.uncertainty["entropy"].tolist() == [1, 1, 1, 1]


def test_a_joined_frame_has_an_identity_of_its_own_and_gathered_rows_keep_theirs() -> None:
    one, other = frame_of([0]), frame_of([1])
    joined = join([one, other])
    assert joined.frame_id not in {one.frame_id, other.frame_id}
    assert joined.origins is None
    origin = Origin(one.frame_id, 5)
    assert join([replace(one, origins=[origin]), replace(other, origins=[origin])]).origins == [origin, origin]


@pytest.mark.parametrize(
    "other",
    [
        frame_of([1], width=4),
        Frame("m", {"b": np.zeros((1, 3), np.float32)}, event_time_ms=np.array([1])),
        Frame("m", {"a": np.zeros((1, 3), np.float16)}, event_time_ms=np.array([1])),
        Frame("n", {"a": np.zeros((1, 3), np.float32)}, event_time_ms=np.array([1])),
        frame_of([1], output=np.ones((1, 2), np.float32)),
        frame_of([1], predicted=np.array([1])),
        frame_of([1], label=np.array([1])),
        frame_of([1], uncertainty={"entropy": np.ones(1, np.float32)}),
    ],
    ids=["width", "layer", "dtype", "model", "output", "predicted", "label", "uncertainty"],
)
def test_frames_that_differ_in_their_tensors_have_another_layout(other: Frame) -> None:
    assert layout(other) != layout(frame_of([0]))


def test_ids_make_no_other_layout() -> None:
    assert layout(frame_of([0])) == layout(frame_of([0, 1], ids=False, client_ids=["a", "b"]))


def test_an_owned_frame_does_not_follow_what_the_caller_writes() -> None:
    layer, entropy, ids = np.zeros((2, 3), np.float32), np.zeros(2, np.float32), ["a", "b"]
    frame = Frame("m", {"a": layer}, event_time_ms=np.array([1, 2]), uncertainty={"entropy": entropy}, sample_ids=ids)
    copy = owned(frame)
    layer[:], entropy[:], ids[0] = 9, 9, "z"
    assert copy.frame_id == frame.frame_id
    assert copy.layers["a"].max() == 0
    assert copy.uncertainty is not None
    assert copy.uncertainty["entropy"].max() == 0
    assert copy.sample_ids == ["a", "b"]
