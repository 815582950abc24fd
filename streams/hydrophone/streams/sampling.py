"""Bottom-k sampling: of all rows offered, the k with the smallest priority.

A uniform sample without replacement that depends on the set of rows alone: any order, any duplication of offers and any
merge of two samples gives the same rows (Cohen & Kaplan, "Summarizing data using bottom-k sketches", PODC 2007).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.frame import Frame, concat
from hydrophone.schemas.origins import Origins

__all__ = ["BottomK"]


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Kept rows of one record: `rows` of `frame` (None: all), which keeps `alive` bytes in memory."""

    priorities: NDArray[np.uint64]
    frame: Frame
    rows: NDArray[np.intp] | None
    alive: int

    def only(self, keep: NDArray[np.intp]) -> "_Chunk":
        """Some of the rows."""
        rows = keep if self.rows is None else self.rows[keep]
        return _Chunk(self.priorities[keep], self.frame, rows, self.alive).trimmed()

    def trimmed(self) -> "_Chunk":
        """Copied where it holds more than half of its memory in vain: a view keeps a whole record alive."""
        if self.rows is None:
            return self
        needed = _row_bytes(self.frame) * self.rows.size
        return _Chunk(self.priorities, self.gather(), None, needed) if 2 * needed < self.alive else self

    def gather(self) -> Frame:
        return self.frame if self.rows is None else self.frame.take(self.rows)

    def origins(self) -> Origins:
        origins = self.frame.row_origins()
        return origins if self.rows is None else origins.take(self.rows)


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
        known = frame.with_origins(frame.row_origins(partition, offset))
        self._keep(_Chunk(priorities, known, rows, record_bytes))

    def add(self, rows: Frame, priorities: NDArray[np.uint64]) -> None:
        """Offer rows of another sample, with their origins."""
        self._keep(_Chunk(priorities, rows, None, _row_bytes(rows) * len(rows)))

    def _keep(self, chunk: _Chunk) -> None:
        self._chunks.append(chunk.trimmed())
        self._held += chunk.priorities.size
        if self._held >= 2 * self._k:
            self._compact()

    def sample(self) -> Frame | None:
        """The k rows, in ascending priority, ties by identity; None when nothing was offered."""
        if self._held > self._k:
            self._compact()
        if not self._chunks:
            return None
        priorities = np.concatenate([chunk.priorities for chunk in self._chunks])
        order = Origins.concat([chunk.origins() for chunk in self._chunks]).order_by(priorities)
        return concat(_joinable([chunk.gather() for chunk in self._chunks]), order)

    def _compact(self) -> None:
        """Keep the k smallest. Priorities are 64-bit hashes; equal ones at the border are settled by identity."""
        priorities = np.concatenate([chunk.priorities for chunk in self._chunks])
        keep = self._smallest(priorities)
        chunks, start = [], 0
        for chunk in self._chunks:
            mine = np.flatnonzero(keep[start : start + chunk.priorities.size])
            start += chunk.priorities.size
            if mine.size:
                chunks.append(chunk if mine.size == chunk.priorities.size else chunk.only(mine))
        self._chunks, self._held = chunks, int(keep.sum())
        self._threshold = priorities[keep].max() if self._held >= self._k else None

    def _smallest(self, priorities: NDArray[np.uint64]) -> NDArray[np.bool_]:
        cut = np.partition(priorities, self._k - 1)[self._k - 1]
        keep: NDArray[np.bool_] = priorities < cut
        tied = np.flatnonzero(priorities == cut)
        wanted = self._k - int(keep.sum())
        if tied.size > wanted:
            origins = Origins.concat([chunk.origins() for chunk in self._chunks])
            tied = tied[origins.take(tied).order_by(priorities[tied])[:wanted]]
        keep[tied] = True
        return keep


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
