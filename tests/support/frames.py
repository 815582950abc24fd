"""Builders of frames and of raw bytes that pretend to be frames. Nothing here asserts anything."""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.frame import Frame

__all__ = ["MODEL", "T0", "class_frame", "frame_id", "gaussian_frame", "plain_frame", "raw_frame", "split_frame"]

MODEL: Final = "mnist/cnn"
T0: Final = 1_700_000_000_000
"""An event time, UTC milliseconds."""

_NAMES: Final = uuid.UUID("00000000-0000-5000-8000-000000000000")


def frame_id(name: object) -> str:
    """A frame id that a rerun gets again: where rows stand in the test depends on it."""
    return str(uuid.uuid5(_NAMES, str(name)))


def plain_frame(layers: Mapping[str, NDArray[Any]], name: object = "frame", **parts: Any) -> Frame:
    """A frame of `MODEL` around some layers; `name` decides its id."""
    chosen: dict[str, Any] = {"event_time_ms": T0, "frame_id": frame_id(name)} | parts
    return Frame(MODEL, layers, **chosen)


def gaussian_frame(
    rows: int,
    seed: int,
    *,
    dimensions: Mapping[str, int] | None = None,
    shift: float = 0.0,
    shifted: int | None = None,
    **parts: Any,
) -> Frame:
    """Standard normal layers; the first `shifted` rows (all by default) moved by `shift` in every feature."""
    rng = np.random.default_rng(seed)
    layers = {}
    for name, width in (dimensions or {"fc": 8}).items():
        values = rng.standard_normal((rows, width)).astype(np.float32)
        values[: rows if shifted is None else shifted] += shift
        layers[name] = values
    return plain_frame(layers, seed, **parts)


def class_frame(
    rows: int,
    seed: int,
    *,
    shares: Sequence[float],
    width: int = 8,
    separation: float = 4.0,
    shift: float = 0.0,
    **parts: Any,
) -> Frame:
    """Rows of several predicted classes, class c centred at `separation` on feature c; `shift` moves class 0 alone."""
    rng = np.random.default_rng(seed)
    predicted = rng.choice(len(shares), size=rows, p=shares)
    values = rng.standard_normal((rows, width)).astype(np.float32)
    values[np.arange(rows), predicted % width] += separation
    values[predicted == 0] += shift
    return plain_frame({"fc": values}, seed, predicted=predicted, **parts)


def split_frame(frame: Frame, cuts: Sequence[int], *, ids: Sequence[str]) -> list[Frame]:
    """The same rows as several frames with ids of their own."""
    parts = np.split(np.arange(len(frame)), list(cuts))
    return [
        Frame(
            frame.model,
            {name: array[rows] for name, array in frame.layers.items()},
            event_time_ms=frame.event_time_ms[rows],
            frame_id=identity,
            predicted=None if frame.predicted is None else frame.predicted[rows],
        )
        for rows, identity in zip(parts, ids, strict=True)
    ]


def raw_frame(header: Any, body: bytes = b"", *, length: int | None = None) -> bytes:
    """Safetensors framing around anything: a header that is JSON or not, a length that is true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body
