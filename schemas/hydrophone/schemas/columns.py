"""Columns of rows that came together: what a row has with others is kept once. What is kept is the columns' own."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Column", "needed", "own_rows"]

_FEW_ROWS: Final = 4_096
"""As a record has: their numbers are worth keeping."""

T = TypeVar("T")
P = TypeVar("P")


class Column(Sequence[T]):
    """N values: value i is number `rows[i]` of thing `places[i]`, both int64 `[N]` and not to be written to. Equal to
    any sequence of the same values.
    """

    __slots__ = ("places", "rows")

    places: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


def needed(things: list[P], places: NDArray[np.int64]) -> tuple[list[P], NDArray[np.int64]]:
    """The things that rows at these places are of, and the places among those; the very list where it is short."""
    if len(things) <= len(places):
        return things, places
    used, among_used = np.unique(places, return_inverse=True)
    return [things[place] for place in used.tolist()], among_used


def own_rows(rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`places` and `rows` of rows that are all of one thing, in their order."""
    return _shared_own_rows(rows) if rows <= _FEW_ROWS else (np.zeros(rows, np.int64), np.arange(rows))


@lru_cache(64)
def _shared_own_rows(rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places, numbers = np.zeros(rows, np.int64), np.arange(rows)
    places.flags.writeable = numbers.flags.writeable = False
    return places, numbers
