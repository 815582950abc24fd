"""Where rows were first seen. As columns: a window holds thousands of rows, and few are ever looked at one by one."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.columns import Column, needed, own_rows
from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.names import check_frame_id

__all__ = ["MAX_ROWS", "Origin", "Origins"]

MAX_ROWS: Final = 65_536
"""Rows one record or file may hold; the publisher splits far below it, files stay under it."""

_NUMBER: Final = re.compile(r"-1|[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row was first seen: its identity `(frame_id, row)` and the record that carried it."""

    frame_id: str
    row: int
    partition: int = -1
    offset: int = -1

    def __str__(self) -> str:
        return f"{self.frame_id}:{self.row}:{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Origin":
        try:
            frame_id, *numbers = text.split(":")
            row, partition, offset = (int(number) for number in numbers if _NUMBER.fullmatch(number))
            if not 0 <= row < MAX_ROWS:  # a sampler makes room for this many priorities
                raise ValueError(row)
            return cls(check_frame_id(frame_id), row, partition, offset)
        except ValueError:
            raise FrameInvalid(
                "bad_origins", f"an origin reads `frame_id:row:partition:offset`; got {text!r:.80}"
            ) from None


class Origins(Column[Origin]):
    """The origins of N rows, in order. Row i is row `rows[i]` of the frame in `records[places[i]]`, a tuple
    `(frame_id, partition, offset)`.
    """

    __slots__ = ("records",)

    def __init__(self, records: list[tuple[str, int, int]], places: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self.records, self.places, self.rows = records, places, rows

    @classmethod
    def of_frame(cls, frame_id: str, rows: int, partition: int = -1, offset: int = -1) -> "Origins":
        """All rows of a frame that one record carried."""
        return cls([(frame_id, partition, offset)], *own_rows(rows))

    @classmethod
    def of(cls, origins: Iterable[Origin]) -> "Origins":
        """Any origins, as columns."""
        if isinstance(origins, Origins):
            return origins
        found: dict[tuple[str, int, int], int] = {}
        pairs = [(found.setdefault((o.frame_id, o.partition, o.offset), len(found)), o.row) for o in origins]
        places, rows = np.array(pairs, np.int64).reshape(-1, 2).T
        return cls(list(found), places, rows)

    @classmethod
    def concat(cls, parts: Sequence["Origins"]) -> "Origins":
        """All rows of the parts, in order."""
        found: dict[tuple[str, int, int], int] = {}
        tables = [np.array([found.setdefault(r, len(found)) for r in part.records], np.int64) for part in parts]
        places = [table[part.places] for table, part in zip(tables, parts, strict=True)]
        return cls(list(found), np.concatenate(places), np.concatenate([part.rows for part in parts]))

    def take(self, index: NDArray[np.integer[Any]] | slice) -> "Origins":
        """Some rows, in the order of `index`; records that none of them is of are let go."""
        return Origins(*needed(self.records, self.places[index]), self.rows[index])

    def frames(self) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
        """The distinct frame ids in ascending order, and which of them each row is from."""
        frame_ids, inverse = np.unique(np.array([frame_id for frame_id, _, _ in self.records]), return_inverse=True)
        return frame_ids, inverse[self.places]

    def identities(self) -> list[str]:
        """`frame_id:row` of each row, in order: what tells it from every other."""
        names = [frame_id for frame_id, _, _ in self.records]
        return [f"{names[n]}:{row}" for n, row in zip(self.places.tolist(), self.rows.tolist(), strict=True)]

    def order_by(self, priorities: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Ascending by priority, `[N]`; ties, which hashes hardly have, by identity `(frame_id, row)`."""
        order = np.argsort(priorities, kind="stable")
        ranked = priorities[order]
        if bool((ranked[1:] == ranked[:-1]).any()):
            return np.lexsort((self.rows, self.frames()[1], priorities))
        return order

    @overload
    def __getitem__(self, index: int) -> Origin: ...
    @overload
    def __getitem__(self, index: slice) -> "Origins": ...
    def __getitem__(self, index: int | slice) -> "Origin | Origins":
        if isinstance(index, slice):
            return self.take(index)
        frame_id, partition, offset = self.records[self.places[index]]
        return Origin(frame_id, int(self.rows[index]), partition, offset)
