"""Bottom-k sampling: of all rows offered, the k with the smallest priority.

A uniform sample without replacement that depends on the set of rows alone: any order, any duplication of offers and any
merge of two samples gives the same rows (Cohen & Kaplan, "Summarizing data using bottom-k sketches", PODC 2007).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.frame import Frame, Origin, concat

__all__ = ["BottomK"]


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Kept rows of one record: `frame.take(rows)` unless `rows` is None, when they are the whole frame."""

    priorities: NDArray[np.uint64]
    frame: Frame
    rows: NDArray[np.intp] | None
    partition: int
    offset: int

    def gather(self, keep: NDArray[np.intp]) -> Frame:
        rows = keep if self.rows is None else self.rows[keep]
        frame = self.frame
        origins: Sequence[Origin] = (
            [frame.origins[i] for i in rows]
            if frame.origins is not None
            else [Origin(frame.frame_id, int(row), self.partition, self.offset) for row in rows]
        )
        return frame.take(rows, origins=origins)


class BottomK:
    """Owned by one window. Holds fewer than 2k rows; compacts when it would not."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._chunks: list[_Chunk] = []
        self._held = 0
        self._threshold: np.uint64 | None = None

    def __len__(self) -> int:
        return min(self._held, self._k)

    def offer(
        self,
        frame: Frame,
        rows: NDArray[np.intp] | None,
        priorities: NDArray[np.uint64],
        *,
        partition: int,
        offset: int,
        record_bytes: int,
    ) -> None:
        """Offer some rows of a frame (None: all), with their priorities in the same order."""
        if self._threshold is not None:
            good = np.flatnonzero(priorities <= self._threshold)
            if good.size == 0:
                return
            if good.size < priorities.size:
                priorities = priorities[good]
                rows = good if rows is None else rows[good]
        chunk = _Chunk(priorities, frame, rows, partition, offset)
        # A view keeps the whole record alive: copy where that would waste more than half of it.
        if rows is not None and 2 * _row_bytes(frame) * rows.size < record_bytes:
            everything = np.arange(rows.size)
            chunk = _Chunk(priorities, chunk.gather(everything), None, partition, offset)
        self._chunks.append(chunk)
        self._held += priorities.size
        if self._held >= 2 * self._k:
            self._compact()

    def sample(self) -> Frame | None:
        """The k rows, in ascending priority, ties by identity; None when nothing was offered."""
        if self._held > self._k:
            self._compact()
        if not self._chunks:
            return None
        rows = concat(_joinable([chunk.gather(np.arange(chunk.priorities.size)) for chunk in self._chunks]))
        origins = rows.row_origins()
        identity = [(origin.frame_id, origin.row) for origin in origins]
        priorities = np.concatenate([chunk.priorities for chunk in self._chunks])
        order = np.array(sorted(range(len(rows)), key=lambda i: (priorities[i], identity[i])), np.intp)
        return rows.take(order, origins=[origins[i] for i in order])

    def _compact(self) -> None:
        """Keep the k smallest. Priorities are 64-bit hashes; equal ones at the border are settled by identity."""
        priorities = np.concatenate([chunk.priorities for chunk in self._chunks])
        keep = self._smallest(priorities)
        chunks, start = [], 0
        for chunk in self._chunks:
            mine = np.flatnonzero(keep[start : start + chunk.priorities.size])
            start += chunk.priorities.size
            if mine.size == chunk.priorities.size:
                chunks.append(chunk)
            elif mine.size:
                kept = chunk.gather(mine)
                chunks.append(_Chunk(chunk.priorities[mine], kept, None, chunk.partition, chunk.offset))
        self._chunks, self._held = chunks, int(keep.sum())
        self._threshold = priorities[keep].max() if self._held >= self._k else None

    def _smallest(self, priorities: NDArray[np.uint64]) -> NDArray[np.bool_]:
        cut = np.partition(priorities, self._k - 1)[self._k - 1]
        keep: NDArray[np.bool_] = priorities < cut
        tied = np.flatnonzero(priorities == cut)
        wanted = self._k - int(keep.sum())
        if tied.size > wanted:
            tied = np.array(sorted(tied.tolist(), key=self._identity)[:wanted], np.intp)
        keep[tied] = True
        return keep

    def _identity(self, place: int) -> tuple[str, int]:
        for chunk in self._chunks:
            if place < chunk.priorities.size:
                row = place if chunk.rows is None else int(chunk.rows[place])
                origin = chunk.frame.origins[row] if chunk.frame.origins is not None else None
                return (origin.frame_id, origin.row) if origin else (chunk.frame.frame_id, row)
            place -= chunk.priorities.size
        raise AssertionError("a place beyond the rows held")


def _joinable(frames: list[Frame]) -> list[Frame]:
    """Outputs of unequal width cannot stand in one array: where they occur, the classes stay and the outputs go."""
    widths = {frame.output.shape[1] for frame in frames if frame.output is not None}
    if len(widths) < 2:
        return frames
    return [replace(frame, output=None, predicted=frame.classes()) for frame in frames]


def _row_bytes(frame: Frame) -> int:
    arrays: list[NDArray[Any]] = [*frame.layers.values()]
    arrays += [array for array in (frame.output, frame.predicted, frame.event_time_ms) if array is not None]
    return sum(array.nbytes for array in arrays) // len(frame)
