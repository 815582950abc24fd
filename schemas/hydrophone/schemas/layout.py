"""Where a frame's arrays lie in its bytes. Depends on the tensor table alone, so that one layout serves all frames of
one make. What the arrays mean, and the metadata beside them, do not live here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.origins import MAX_ROWS
from hydrophone.schemas.safetensors_header import TensorClaim, read_table

__all__ = ["LAYER", "LONGEST_SHARED_TABLE", "UNCERTAINTY", "Layout", "check_row_limit", "check_shapes", "shared_layout"]

LAYER: Final = "layer."
UNCERTAINTY: Final = "uncertainty."
LONGEST_SHARED_TABLE: Final = 16 * 1024
SHARED_LAYOUTS: Final = 256
"""With the bound on a table's length this bounds what strangers can make us remember: some 20 MiB."""

_WHOLE: Final = ("event_time_ms", "predicted", "label")
_NUMPY: Final[Mapping[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
}


class _Place(NamedTuple):
    """One array: the name of its field or layer, and what a view of it needs."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    def view(self, data: bytes, base: int) -> NDArray[Any]:
        array: NDArray[Any] = np.ndarray(self.shape, self.dtype, data, base + self.start)
        # bfloat16 is the upper half of a float32.
        return (array.astype(np.uint32) << 16).view(np.float32) if self.dtype == np.uint16 else array


@dataclass(frozen=True, slots=True)
class Layout:
    """The arrays of a data frame: checked against each other and, by their offsets, against the size of the body."""

    layers: tuple[_Place, ...]
    uncertainty: tuple[_Place, ...]
    fields: tuple[_Place, ...]

    @classmethod
    def of(cls, claims: Mapping[str, TensorClaim]) -> "Layout":
        """Raises `FrameInvalid` when the claims do not make a data frame."""
        layers, uncertainty, named = [], [], []
        for name, claim in claims.items():
            if name.startswith(LAYER):
                layers.append(_floats(name, claim, name[len(LAYER) :]))
            elif name == "output":
                named.append(_floats(name, claim, name))
            elif name in _WHOLE:
                named.append(_place(name, claim, ("I64",), name))
            elif name.startswith(UNCERTAINTY):
                uncertainty.append(_place(name, claim, ("F32",), name[len(UNCERTAINTY) :]))
        layout = cls(tuple(layers), tuple(uncertainty), tuple(named))
        layout._check()
        return layout

    def arrays(self, data: bytes, base: int) -> dict[str, Any]:
        """The array parts of a frame by field, as views of `data`; offsets count from `base`."""
        parts: dict[str, Any] = {place.name: place.view(data, base) for place in self.fields}
        parts["layers"] = {place.name: place.view(data, base) for place in self.layers}
        if self.uncertainty:
            parts["uncertainty"] = {place.name: place.view(data, base) for place in self.uncertainty}
        return parts

    def _check(self) -> None:
        shapes = {place.name: place.shape for place in self.fields}
        times = shapes.get("event_time_ms")
        if times is None:
            raise FrameInvalid(
                "missing_tensor:event_time_ms", "a frame says when each row was inferred; got no `event_time_ms`"
            )
        if len(times) != 1:
            raise FrameInvalid("bad_shape", f"`event_time_ms` must have shape [N]; got {list(times)}")
        check_row_limit(times[0])
        shapes |= {UNCERTAINTY + place.name: place.shape for place in self.uncertainty}
        check_shapes({LAYER + place.name: place.shape for place in self.layers}, shapes)


@lru_cache(SHARED_LAYOUTS)
def shared_layout(table: bytes, size: int) -> Layout:
    """The layout of every body of `size` bytes under this tensor table, its offsets counted from the body's first byte.

    Refusals are not remembered. `table` is no longer than `LONGEST_SHARED_TABLE`, which is the caller's to see to.
    """
    return Layout.of(read_table(table, size))


def check_row_limit(rows: int) -> None:
    """On the wire and on disk; rows gathered in memory may be more."""
    if rows > MAX_ROWS:
        raise FrameInvalid("bad_row_count", f"a record or file holds at most {MAX_ROWS} rows; got {rows}: split it")


def check_shapes(layers: Mapping[str, tuple[int, ...]], others: Mapping[str, tuple[int, ...]]) -> None:
    """At least one layer, and as many rows everywhere. Raises `FrameInvalid`."""
    if not layers:
        raise FrameInvalid("no_layers", "a frame carries at least one `layer.<name>` tensor; got none")
    n = next((shape[0] for shape in layers.values() if shape), 0)
    if n < 1:
        raise FrameInvalid("bad_row_count", "a frame holds at least one row; got 0")
    _check_axes(layers.items(), n, is_matrix=True)
    _check_axes(((name, shape) for name, shape in others.items() if name != "output"), n, is_matrix=False)
    _check_axes(((name, shape) for name, shape in others.items() if name == "output"), n, is_matrix=True)


def _check_axes(shapes: Iterable[tuple[str, tuple[int, ...]]], n: int, *, is_matrix: bool) -> None:
    for name, shape in shapes:
        if len(shape) != 1 + is_matrix or shape[0] != n or shape[-1] == 0:
            expected = f"[{n}, >=1]" if is_matrix else f"[{n}]"
            raise FrameInvalid("bad_shape", f"`{name}` must have shape {expected}; got {list(shape)}")


def _place(name: str, claim: TensorClaim, dtypes: tuple[str, ...], known_as: str) -> _Place:
    if claim.dtype not in dtypes:
        raise FrameInvalid("bad_dtype", f"`{name:.80}` must be {' or '.join(dtypes)}; got {claim.dtype}")
    if not 1 <= len(claim.shape) <= 2 or 0 in claim.shape:
        raise FrameInvalid("bad_shape", f"`{name:.80}` must have one or two axes, none empty; got {list(claim.shape)}")
    return _Place(known_as, claim.shape, _NUMPY[claim.dtype], claim.start)


def _floats(name: str, claim: TensorClaim, known_as: str) -> _Place:
    return _place(name, claim, ("F32", "F16", "BF16"), known_as)
