"""Joins small frames and splits large ones. Pure: no queue, no clock, no broker.

What is joined or split is a new frame with an identity of its own; where rows keep theirs, use `schemas.concat`.
"""

import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.frame import Frame, concat

__all__ = ["Piece", "join", "layout", "owned", "split"]

HEADER_BYTES: Final = 2_000
"""Room left for names and shapes when a piece is sized; a piece that still comes out too large is halved."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows as the bytes of one frame; `data` is None for a single row that fits into no frame.

    `earliest_ms` is the first event time.
    """

    rows: int
    data: bytes | None
    frame_id: str
    earliest_ms: int


def layout(frame: Frame) -> Hashable:
    """Frames of equal layout can be joined without losing a tensor."""
    return (
        frame.model,
        _columns(frame.layers),
        None if frame.output is None else (frame.output.shape[1], frame.output.dtype),
        frame.predicted is None,
        frozenset(frame.uncertainty or ()),
        frame.label is None,
        frame.origins is None,
    )


def join(frames: Sequence[Frame]) -> Frame:
    """All rows of frames of one layout, in order, as a frame of its own. At least one frame."""
    first = frames[0]
    if len(frames) == 1:
        return replace(first, frame_id=_new_id())

    joined = concat(frames)
    return replace(
        joined,
        frame_id=_new_id(),
        predicted=None if first.predicted is None else joined.predicted,
        origins=None if first.origins is None else joined.origins,
    )


def split(frame: Frame, max_bytes: int) -> Iterator[Piece]:
    """The frame, encoded, in as few pieces of at most `max_bytes` as row order allows; usually in one."""
    n = len(frame)
    step = max(1, (max_bytes - HEADER_BYTES) * n // _tensor_bytes(frame))
    if step >= n:
        yield from _encoded(frame, max_bytes)
        return
    for start in range(0, n, step):
        yield from _encoded(_rows(frame, start, min(start + step, n)), max_bytes)


def owned(frame: Frame) -> Frame:
    """The frame with arrays nobody else writes to: a service may fill the same buffer again for its next request."""
    return _mapped(frame, np.copy, list)


def _encoded(frame: Frame, max_bytes: int) -> Iterator[Piece]:
    data = frame.encode()
    n = len(frame)
    if len(data) <= max_bytes:
        yield Piece(n, data, frame.frame_id, int(frame.event_time_ms.min()))
    elif n == 1:
        yield Piece(1, None, frame.frame_id, int(frame.event_time_ms.min()))
    else:  # the ids are longer than the tensors let expect
        yield from _encoded(_rows(frame, 0, n // 2), max_bytes)
        yield from _encoded(_rows(frame, n // 2, n), max_bytes)


def _rows(frame: Frame, start: int, stop: int) -> Frame:
    """Rows `[start, stop)` as views, under a new id."""
    piece = _mapped(frame, lambda array: array[start:stop], lambda values: values[start:stop])
    return replace(piece, frame_id=_new_id())


def _mapped(
    frame: Frame,
    array: Callable[[NDArray[Any]], NDArray[Any]],
    values: Callable[[Sequence[Any]], Sequence[Any]],
) -> Frame:
    """The frame with `array` applied to each of its arrays and `values` to each of its lists."""
    changed: dict[str, Any] = {"layers": {name: array(layer) for name, layer in frame.layers.items()}}
    if frame.uncertainty is not None:
        changed["uncertainty"] = {name: array(measure) for name, measure in frame.uncertainty.items()}
    for name in ("event_time_ms", "output", "predicted", "label"):
        if (tensor := getattr(frame, name)) is not None:
            changed[name] = array(tensor)
    for name in ("sample_ids", "client_ids", "attack", "origins"):
        if (entries := getattr(frame, name)) is not None:
            changed[name] = values(entries)
    return replace(frame, **changed)


def _columns(layers: Mapping[str, NDArray[Any]]) -> Hashable:
    return frozenset((name, array.shape[1], array.dtype) for name, array in layers.items())


def _tensor_bytes(frame: Frame) -> int:
    arrays = [*frame.layers.values(), *(frame.uncertainty or {}).values(), frame.event_time_ms]
    arrays += [array for array in (frame.output, frame.predicted, frame.label) if array is not None]
    return sum(array.nbytes for array in arrays)


def _new_id() -> str:
    return str(uuid.uuid4())
