"""What `step` and `merge_step` want done, as frozen values. The runtime performs them in order; nothing here acts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.frame import Frame
from hydrophone.schemas.score import Counts, SourcePart
from hydrophone.streams.record import Record

__all__ = ["DeadLettered", "Effect", "RowsArrived", "RowsLate", "SummaryClosed", "TimePassed", "WindowClosed"]


@dataclass(frozen=True, slots=True)
class WindowClosed:
    """A window to test: no row of it can come any more. `sample` holds at most k rows, None where nothing is kept.

    A sharded model's window was merged from `parts`; partition and offsets are then the first one's.
    """

    model: str
    start_ms: int
    end_ms: int
    partition: int
    first_offset: int
    close_offset: int
    counts: Counts
    sample: Frame | None
    traceparents: tuple[str, ...]
    parts: tuple[SourcePart, ...] = ()


@dataclass(frozen=True, slots=True)
class SummaryClosed:
    """What one partition has of a sharded model's window, to be merged with what the others have."""

    summary: WindowClosed


@dataclass(frozen=True, slots=True)
class TimePassed:
    """A partition's watermark has passed the end of windows; all summaries of those come before this."""

    partition: int
    watermark_ms: int


@dataclass(frozen=True, slots=True)
class RowsArrived:
    """Rows to be judged one by one, by the reference in force at `start_ms`; None: all rows of the frame.

    All that are accounted for as windowed, late or not finite, each once; not those that a window had counted before.
    """

    record: Record
    frame: Frame
    start_ms: int
    rows: NDArray[np.intp] | None


@dataclass(frozen=True, slots=True)
class RowsLate:
    """Rows of a record whose window had closed, by index. The whole record goes to `late`."""

    record: Record
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A record that cannot be used; it goes to `deadletter` as it came, with the reason."""

    record: Record
    reason: str
    detail: str


Effect = WindowClosed | SummaryClosed | TimePassed | RowsArrived | RowsLate | DeadLettered
