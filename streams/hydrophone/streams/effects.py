"""What `step` wants done, as frozen values. The runtime performs them in order; nothing here does anything."""

from dataclasses import dataclass

from hydrophone.schemas.frame import Frame
from hydrophone.schemas.score import Counts
from hydrophone.streams.record import Record

__all__ = ["DeadLettered", "Effect", "RowsLate", "WindowClosed"]


@dataclass(frozen=True, slots=True)
class WindowClosed:
    """A window to test: no row of it can come any more. `sample` holds at most k rows, None where nothing is kept."""

    model: str
    start_ms: int
    end_ms: int
    partition: int
    first_offset: int
    close_offset: int
    counts: Counts
    sample: Frame | None
    traceparents: tuple[str, ...]


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


Effect = WindowClosed | RowsLate | DeadLettered
