"""Bottom-k sampling: of all rows offered, the k with the smallest priority.

A uniform sample without replacement that depends on the set of rows alone: any order, any duplication of offers and any
merge of two samples gives the same rows (Cohen & Kaplan, "Summarizing data using bottom-k sketches", PODC 2007).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.frame import Frame, concat
from hydrophone.schemas.origins import Origins

__all__ = ["BottomK"]


SPARE_BYTES: Final = 4 << 20
"""What a window may always hold in vain. A saturated one keeps a few rows of a record: with 1 MiB the copying was a
quarter of all work, with 4 it is a fifteenth."""


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Kept rows: `rows` of `frame`, None for all. `partition` and `offset` are of the record it came in."""

    priorities: NDArray[np.uint64]
    frame: Frame
    rows: NDArray[np.intp] | None
    partition: int = -1
    offset: int = -1

    def only(self, keep: NDArray[np.intp]) -> "_Chunk":
        """Some of the rows; nothing is copied."""
        rows = keep if self.rows is None else self.rows[keep]
        return _Chunk(self.priorities[keep], self.frame, rows, self.partition, self.offset)

    def origins(self) -> Origins:
        origins = self.frame.row_origins(self.partition, self.offset)
        return origins if self.rows is None else origins.take(self.rows)


class BottomK:
    """Owned by one window. Holds fewer than 2k rows; compacts when it would not.

    Rows stay views of the records they came in until these hold more in vain than the sample itself may take; then,
    and when it compacts, they are copied together and the records let go.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._chunks: list[_Chunk] = []
        self._held = 0
        self._idle_bytes = 0
        self._threshold: np.uint64 | None = None
        self.version = 0
        """Grows whenever rows come that may be kept."""

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
            good = (priorities <= self._threshold).nonzero()[0]
            if good.size == 0:
                return
            if good.size < priorities.size:
                priorities = priorities[good]
                rows = good if rows is None else rows[good]
        self._keep(_Chunk(priorities, frame, rows, partition, offset), record_bytes)

    def add(self, rows: Frame, priorities: NDArray[np.uint64]) -> None:
        """Offer rows of another sample, with their origins."""
        self._keep(_Chunk(priorities, rows, None), 0)

    def _keep(self, chunk: _Chunk, record_bytes: int) -> None:
        self.version += 1
        self._chunks.append(chunk)
        self._held += chunk.priorities.size
        row_bytes = sum(array.nbytes for array in chunk.frame.layers.values()) // len(chunk.frame)
        self._idle_bytes += max(0, record_bytes - row_bytes * chunk.priorities.size)
        if self._held >= 2 * self._k:
            self._compact()
        elif self._idle_bytes > max(SPARE_BYTES, 2 * self._k * row_bytes):
            self._settle()

    def sample(self) -> Frame | None:
        """The k rows, in ascending priority, ties by identity; None when nothing was offered."""
        if self._held > self._k:
            self._compact()
        if not self._chunks:
            return None
        origins = Origins.concat([chunk.origins() for chunk in self._chunks])
        order = origins.order_by(np.concatenate([chunk.priorities for chunk in self._chunks]))
        frames = _joinable([chunk.frame for chunk in self._chunks])
        return concat(frames, order, picks=[chunk.rows for chunk in self._chunks], origins=origins)

    def parts(self) -> list[Frame]:
        """The k rows with their origins, those of one make together: a sample that is given them goes on alike."""
        if self._held > self._k:
            self._compact()
        else:
            self._settle()
        return [chunk.frame for chunk in self._chunks]

    def _compact(self) -> None:
        """Keep the k smallest. Priorities are 64-bit hashes; equal ones at the border are settled by identity."""
        priorities = np.concatenate([chunk.priorities for chunk in self._chunks])
        keep = np.flatnonzero(self._smallest(priorities))
        starts = np.cumsum([0, *(chunk.priorities.size for chunk in self._chunks)])
        bounds = np.searchsorted(keep, starts)
        self._chunks = [
            chunk.only(keep[first:last] - start)
            for chunk, start, first, last in zip(self._chunks, starts, bounds, bounds[1:], strict=False)
            if first < last
        ]
        self._held = keep.size
        self._threshold = priorities[keep].max() if self._held >= self._k else None
        self._settle()

    def _settle(self) -> None:
        """Copy the rows together. Only those of one make: whether rows keep what others lack must not depend on which
        were there when."""
        makes: dict[Hashable, list[_Chunk]] = {}
        for chunk in self._chunks:
            makes.setdefault(_make(chunk.frame), []).append(chunk)
        self._chunks = [_joined(chunks) for chunks in makes.values()]
        self._idle_bytes = 0

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


def _make(frame: Frame) -> Hashable:
    """What two frames have in common when nothing is lost or widened by joining them."""
    layers = tuple((name, array.dtype, array.shape[1]) for name, array in frame.layers.items())
    output = None if frame.output is None else (frame.output.dtype, frame.output.shape[1])
    optional = (frame.predicted, frame.label, frame.sample_ids, frame.client_ids, frame.attack)
    return layers, output, tuple(frame.uncertainty or ()), tuple(part is None for part in optional)


def _joined(chunks: Sequence[_Chunk]) -> _Chunk:
    """The rows of all in one chunk, in memory of their own."""
    origins = Origins.concat([chunk.origins() for chunk in chunks])
    frame = concat([chunk.frame for chunk in chunks], picks=[chunk.rows for chunk in chunks], origins=origins)
    return _Chunk(np.concatenate([chunk.priorities for chunk in chunks]), frame, None)
