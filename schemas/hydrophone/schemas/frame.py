"""The activation frame: one micro-batch of a model's requests with every tapped layer, as safetensors bytes.

Decoding copies nothing and trusts nothing: every size is checked against the bytes at hand before an array is made.
Windows, sampling and statistics do not live here.
"""

import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.layout import (
    LAYER,
    LONGEST_SHARED_TABLE,
    UNCERTAINTY,
    Layout,
    check_row_limit,
    check_shapes,
    shared_layout,
)
from hydrophone.schemas.names import check_frame_id, check_model
from hydrophone.schemas.origins import Origin, Origins
from hydrophone.schemas.safetensors_header import read_header, read_metadata, split_header, with_metadata
from hydrophone.schemas.texts import Texts, are_texts, read_texts

__all__ = ["Frame", "Heartbeat", "concat", "decode"]

Column = TypeVar("Column", Origins, Texts)

SCHEMA: Final = "1"
MEASURES: Final = ("variance", "entropy", "mutual_information", "confidence")

_LISTS: Final = ("sample_ids", "client_ids", "attack", "origins")
_NULLABLE: Final = ("client_ids", "attack")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A publisher with nothing to say: moves its partition's watermark and carries no row."""

    model: str
    event_time_ms: int
    frame_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def encode(self) -> bytes:
        metadata = {"schema": SCHEMA, "model": check_model(self.model), "frame_id": self.frame_id, "kind": "heartbeat"}
        return with_metadata(save({}), metadata | {"event_time_ms": str(self.event_time_ms)})


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """N rows of one model; every array has N as its first axis. Raises `FrameInvalid` when the parts disagree.

    `layers` (at least one) and `output` are float32 or float16, `[N, D]` and `[N, C]`; `output` holds class
    probabilities. `event_time_ms` is int64 UTC milliseconds, `[N]` or one number for all rows. `sample_ids` are labels
    for people, never identity: a row is identified by `(frame_id, row)`, or by its origin when it was gathered from
    other frames. Arrays of a decoded frame are read-only views of its bytes.
    """

    model: str
    layers: Mapping[str, NDArray[Any]]
    event_time_ms: NDArray[np.int64] = field(kw_only=True)
    frame_id: str = field(kw_only=True, default="")
    sample_ids: Sequence[str] | None = field(kw_only=True, default=None)
    client_ids: Sequence[str | None] | None = field(kw_only=True, default=None)
    output: NDArray[Any] | None = field(kw_only=True, default=None)
    predicted: NDArray[np.int64] | None = field(kw_only=True, default=None)
    uncertainty: Mapping[str, NDArray[Any]] | None = field(kw_only=True, default=None)
    label: NDArray[np.int64] | None = field(kw_only=True, default=None)
    attack: Sequence[str | None] | None = field(kw_only=True, default=None)
    origins: Sequence[Origin] | None = field(kw_only=True, default=None)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "layers", {name: _matrix(f"layer.{name}", value) for name, value in self.layers.items()})
        if self.output is not None:
            put(self, "output", _matrix("output", self.output))
        if self.uncertainty is not None:
            put(self, "uncertainty", {k: np.asarray(v, np.float32) for k, v in self.uncertainty.items()})
        for name in ("predicted", "label"):
            if getattr(self, name) is not None:
                put(self, name, _whole(name, getattr(self, name)))
        times = _whole("event_time_ms", self.event_time_ms)
        rows = next((len(values) for values in self.layers.values()), 0)
        put(self, "event_time_ms", np.full(rows, times) if times.ndim == 0 else times)
        if not self.frame_id:
            put(self, "frame_id", str(uuid.uuid4()))
        if self.origins is not None:
            put(self, "origins", Origins.of(self.origins))
        for name in ("sample_ids", *_NULLABLE):
            if not are_texts(getattr(self, name) or (), nullable=name in _NULLABLE):
                raise FrameInvalid(
                    f"bad_{name}", f"`{name}` must hold strings{' or None' if name in _NULLABLE else ''}"
                )
        self._check()

    def __len__(self) -> int:
        return len(self.event_time_ms)

    def _check(self) -> None:
        """Parts of the right types must agree with each other."""
        others = {name: array.shape for name, array in self._tensors() if not name.startswith(LAYER)}
        check_shapes({LAYER + name: array.shape for name, array in self.layers.items()}, others)
        self._check_texts()

    def _check_texts(self) -> None:
        """What a frame of checked arrays can still get wrong."""
        check_model(self.model)
        object.__setattr__(self, "frame_id", check_frame_id(self.frame_id))
        for name in _LISTS:
            values = getattr(self, name)
            if values is not None and len(values) != len(self):
                raise FrameInvalid(
                    f"bad_{name}", f"`{name}` must have one entry per row, {len(self)}; got {len(values)}"
                )

    def _tensors(self) -> Iterable[tuple[str, NDArray[Any]]]:
        for name, array in self.layers.items():
            yield LAYER + name, array
        for name, array in (self.uncertainty or {}).items():
            yield UNCERTAINTY + name, array
        for name in ("output", "predicted", "event_time_ms", "label"):
            if (array := getattr(self, name)) is not None:
                yield name, array

    def encode(self) -> bytes:
        """The frame as safetensors bytes, at most `MAX_ROWS` rows; equal frames give equal bytes."""
        check_row_limit(len(self))
        metadata = {"schema": SCHEMA, "model": self.model, "frame_id": self.frame_id, "kind": "data"}
        for name in _LISTS:
            values = getattr(self, name)
            if values is not None:
                texts = [str(origin) for origin in values] if name == "origins" else list(values)
                metadata[name] = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
        try:
            tensors = save({name: np.ascontiguousarray(array) for name, array in self._tensors()})
            return with_metadata(tensors, metadata)
        except UnicodeEncodeError as error:
            raise FrameInvalid("bad_text", f"names and ids must be valid Unicode; {error.reason}") from None

    @classmethod
    def decode(cls, data: bytes) -> "Frame":
        """The frame in `data`, as views of it. Raises `FrameInvalid` for anything else, a heartbeat included."""
        frame = decode(data)
        if isinstance(frame, Heartbeat):
            raise FrameInvalid("unexpected_heartbeat", "a data frame was expected; got a heartbeat")
        return frame

    def classes(self) -> NDArray[np.int64] | None:
        """Predicted class per row: `predicted`, else the argmax of `output`, else None."""
        if self.predicted is not None:
            return self.predicted
        return None if self.output is None else self.output.argmax(axis=1).astype(np.int64)

    def row_origins(self, partition: int = -1, offset: int = -1) -> Origins:
        """The origin of each row; rows not gathered from elsewhere are this frame's own."""
        if self.origins is not None:
            return Origins.of(self.origins)
        return Origins.of_frame(self.frame_id, len(self), partition, offset)

    def only(self, layers: Iterable[str]) -> "Frame":
        """The same rows with some layers left out. At least one layer."""
        return self._changed(layers={name: self.layers[name] for name in layers})

    def with_origins(self, origins: Origins | None) -> "Frame":
        """The same rows, known by other origins; None: by this frame's id and their place in it."""
        return self._changed(origins=origins)

    def _changed(self, **parts: Any) -> "Frame":
        """This frame with some valid parts put in place of others. The checks of a frame from outside cost more than
        what is done with it here, thousands of times a second."""
        return _unchecked({name: getattr(self, name) for name in _FIELDS} | parts)

    def take(self, rows: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> "Frame":
        """A copy of some rows, at least one, in the order given; each keeps its origin."""
        index: NDArray[np.integer[Any]] = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows  # type: ignore[assignment]
        if not index.size:
            raise FrameInvalid("bad_row_count", "a frame holds at least one row; got 0")
        picked = {
            name: values if values is None else Texts.of(values).take(index)
            for name, values in (
                ("sample_ids", self.sample_ids),
                ("client_ids", self.client_ids),
                ("attack", self.attack),
            )
        }
        rows_of = {
            name: array if array is None else array[index]
            for name, array in (("output", self.output), ("predicted", self.predicted), ("label", self.label))
        }
        return self._changed(
            layers={name: array[index] for name, array in self.layers.items()},
            event_time_ms=self.event_time_ms[index],
            uncertainty=None if self.uncertainty is None else {k: v[index] for k, v in self.uncertainty.items()},
            origins=self.row_origins().take(index),
            **picked,
            **rows_of,
        )

    def finite_rows(self, layers: Iterable[str] | None = None) -> NDArray[np.bool_] | None:
        """Which rows hold finite numbers only, in `layers` (all by default) and `output`; None when all do.

        None is the common answer and costs one pass: a finite sum of squares means finite parts, for NaN and infinity
        survive it. A sum that overflows is looked at row by row.
        """
        arrays = [self.layers[name] for name in (self.layers if layers is None else layers)]
        arrays += [] if self.output is None else [self.output]
        good: NDArray[np.bool_] | None = None
        for array in arrays:
            if not _surely_finite(array):
                rows = np.isfinite(array).all(axis=1)
                good = rows if good is None else good & rows
        return None if good is None or bool(good.all()) else good


_ALONE: Final = 8_192
"""Numbers in one dot product: above 10,000 OpenBLAS wakes other threads, which costs more than it saves."""

_FIELDS: Final = tuple(part.name for part in fields(Frame))
_NOTHING: Final[Mapping[str, None]] = dict.fromkeys(_FIELDS)


def decode(data: bytes) -> Frame | Heartbeat:
    """What one record of the activations topic holds. Raises `FrameInvalid` and nothing else, whatever the bytes."""
    frame = _decoded_shortly(data)
    return _decoded(data) if frame is None else frame


def _decoded(data: bytes) -> Frame | Heartbeat:
    metadata, claims = read_header(data)
    if metadata.get("schema") != SCHEMA:
        raise FrameInvalid("unknown_schema", f"`schema` must be {SCHEMA!r}; got {metadata.get('schema')!r:.40}")
    kind = metadata.get("kind")
    if kind == "heartbeat":
        return _heartbeat(metadata)
    if kind != "data":
        raise FrameInvalid("bad_kind", f"`kind` must be 'data' or 'heartbeat'; got {kind!r:.40}")
    return _data_frame(metadata, Layout.of(claims).arrays(data, 0))


def _decoded_shortly(data: bytes) -> Frame | None:
    """The data frame in `data` by a layout that is known already; None for all that needs a closer look.

    It refuses nothing, so that there is one place that says what is wrong with a record.
    """
    try:
        parts = split_header(data)
        if parts is None or len(parts.table) > LONGEST_SHARED_TABLE:
            return None
        metadata = read_metadata(parts.metadata)
        if metadata.get("schema") != SCHEMA or metadata.get("kind") != "data":
            return None
        layout = shared_layout(parts.table, len(data) - parts.body_start)
        return _data_frame(metadata, layout.arrays(data, parts.body_start))
    except FrameInvalid:
        return None


def concat(
    frames: Sequence[Frame],
    order: NDArray[np.intp] | None = None,
    *,
    picks: Sequence[NDArray[np.intp] | None] | None = None,
    origins: Origins | None = None,
) -> Frame:
    """One frame of all rows, at least one frame; keeps what every frame has, and each row's origin.

    `order`, a permutation, says which of all rows comes first, second, ...; None: as they come. `picks` are the rows
    meant of each frame, None for all; `origins` stand for what the frames say, row by row.
    """
    first = frames[0]
    if any(frame.model != first.model for frame in frames):
        raise FrameInvalid("mixed_models", f"frames of one model join; got {sorted({f.model for f in frames})}")
    names = [name for name in first.layers if all(name in frame.layers for frame in frames)]
    if not names:
        raise FrameInvalid("no_layers", f"frames that join share a layer; the first has {sorted(first.layers)}")
    parts = list(zip(frames, picks or [None] * len(frames), strict=True))
    if origins is None:
        origins = Origins.concat([_taken(frame.row_origins(), pick) for frame, pick in parts])

    def join(name: str, get: Callable[[Frame], NDArray[Any] | None]) -> NDArray[Any] | None:
        arrays = [_picked(array, pick) for frame, pick in parts if (array := get(frame)) is not None]
        return _joined(name, arrays, order) if len(arrays) == len(frames) else None

    def layer(name: str) -> NDArray[Any]:
        return _joined(f"layer.{name}", [_picked(frame.layers[name], pick) for frame, pick in parts], order)

    def measure(name: str) -> NDArray[Any]:
        return _joined(name, [_picked((frame.uncertainty or {})[name], pick) for frame, pick in parts], order)

    def chain(get: Callable[[Frame], Sequence[Any] | None], *, gap: Any = None) -> Sequence[Any] | None:
        columns = [(get(frame), len(frame), pick) for frame, pick in parts]
        if all(values is None for values, _, _ in columns):
            return None
        texts = [(Texts.repeated(gap, n) if v is None else Texts.of(v), pick) for v, n, pick in columns]
        together = Texts.concat([_taken(column, pick) for column, pick in texts])
        return together if order is None else together.take(order)

    measures = [m for m in first.uncertainty or {} if all(m in (frame.uncertainty or {}) for frame in frames)]
    return first._changed(  # noqa: SLF001  # of this module
        layers={name: layer(name) for name in names},
        event_time_ms=join("event_time_ms", lambda f: f.event_time_ms),
        sample_ids=chain(lambda f: f.sample_ids, gap=""),
        client_ids=chain(lambda f: f.client_ids),
        output=join("output", lambda f: f.output),
        predicted=join("predicted", lambda f: f.classes()),
        uncertainty={name: measure(name) for name in measures} or None,
        label=join("label", lambda f: f.label),
        attack=chain(lambda f: f.attack),
        origins=origins if order is None else origins.take(order),
    )


def _picked(array: NDArray[Any], rows: NDArray[np.intp] | None) -> NDArray[Any]:
    return array if rows is None else array.take(rows, axis=0)


def _taken(column: Column, rows: NDArray[np.intp] | None) -> Column:
    return column if rows is None else column.take(rows)


def _joined(name: str, arrays: Sequence[NDArray[Any]], order: NDArray[np.intp] | None) -> NDArray[Any]:
    """All rows in order, copied once."""
    widths = {array.shape[1:] for array in arrays}
    if len(widths) > 1:
        raise FrameInvalid("bad_shape", f"`{name}` must be equally wide in all frames that join; got {sorted(widths)}")
    if order is None:
        return np.concatenate(arrays)
    places = np.empty_like(order)
    places[order] = np.arange(order.size)
    joined = np.empty((order.size, *arrays[0].shape[1:]), np.result_type(*{array.dtype for array in arrays}))
    start = 0
    for array in arrays:
        joined[places[start : start + len(array)]] = array
        start += len(array)
    return joined


def _heartbeat(metadata: Mapping[str, str]) -> Heartbeat:
    try:
        event_time_ms = int(np.int64(int(metadata["event_time_ms"])))
    except (KeyError, ValueError, OverflowError):
        raise FrameInvalid("bad_heartbeat", "a heartbeat's metadata needs a 64-bit `event_time_ms`") from None
    return Heartbeat(check_model(metadata.get("model")), event_time_ms, check_frame_id(metadata.get("frame_id", "")))


def _data_frame(metadata: Mapping[str, str], arrays: Mapping[str, Any]) -> Frame:
    if not metadata.get("frame_id"):
        raise FrameInvalid("bad_frame_id", "a record's frame carries the `frame_id` its publisher minted; got none")
    lists: dict[str, Any] = {
        name: read_texts(name, metadata[name], nullable=name in _NULLABLE) for name in _LISTS if name in metadata
    }
    if "origins" in lists:
        lists["origins"] = Origins.of(Origin.parse(text) for text in lists["origins"])
    known = {"model": metadata.get("model", ""), "frame_id": metadata["frame_id"]}
    frame = _unchecked({**_NOTHING, **known, **arrays, **lists})
    frame._check_texts()  # noqa: SLF001  # of this module
    return frame


def _unchecked(parts: Mapping[str, Any]) -> Frame:
    """A frame of parts that have the types it keeps them in."""
    frame = object.__new__(Frame)
    for name, part in parts.items():
        object.__setattr__(frame, name, part)
    return frame


def _matrix(name: str, value: ArrayLike) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype in (np.float32, np.float16):
        return array
    if array.dtype == np.float64:
        return array.astype(np.float32)
    raise FrameInvalid("bad_dtype", f"`{name}` must be float32 or float16; got {array.dtype}")


def _whole(name: str, value: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.dtype == np.int64:
        return array
    if array.dtype.kind in "iu" and array.dtype != np.uint64:
        return array.astype(np.int64)
    raise FrameInvalid("bad_dtype", f"`{name}` must be whole numbers; got {array.dtype}")


@np.errstate(over="ignore", invalid="ignore")
def _surely_finite(array: NDArray[Any]) -> bool:
    if array.dtype == np.float16:  # half-precision sums overflow and are slow: look at the exponent bits instead
        return int((array.view(np.uint16) & 0x7C00).max()) != 0x7C00
    flat = array.ravel()
    parts = [flat[start : start + _ALONE] for start in range(0, flat.size, _ALONE)]
    return math.isfinite(sum(float(np.dot(part, part)) for part in parts))
