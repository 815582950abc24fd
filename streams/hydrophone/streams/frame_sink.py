"""What a place that takes frames promises, and how it counts them. The places: `publisher.py`, `frame_writer.py`.

Nothing here knows a broker or a file.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from threading import Lock
from typing import Literal, Protocol, runtime_checkable

from hydrophone.schemas.errors import FrameInvalid, SettingsError
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.names import check_model

__all__ = ["FrameSink", "LazyFrameSink", "SinkStats", "Tally", "require_model"]


class FrameSink(Protocol):
    """Takes frames of one model. Neither method raises: a full queue or a lost broker is an answer."""

    @property
    def model(self) -> str: ...

    def publish(self, frame: Frame) -> bool:
        """False when the frame was dropped."""

    def close(self, timeout_s: float = 10) -> int:
        """Rows that were accepted and never arrived."""


@runtime_checkable
class LazyFrameSink(FrameSink, Protocol):
    """A sink that can build the frame itself, later and on its own thread, so that the caller need not."""

    def offer(self, rows: int, build: Callable[[], Frame]) -> bool:
        """As `publish`, for the frame of `rows` rows that `build` returns; `build` is called at most once."""


@dataclass(frozen=True, slots=True)
class SinkStats:
    """What became of everything handed over, in rows, and in frames where named so.

    published = delivered + failed + still under way. `dropped` was refused at once. A `delivered` or `failed` frame is
    a record or a file: it joins small frames or is a piece of a large one.
    """

    published: int = 0
    dropped: int = 0
    delivered: int = 0
    failed: int = 0
    published_frames: int = 0
    dropped_frames: int = 0
    delivered_frames: int = 0
    failed_frames: int = 0
    heartbeats: int = 0


class Tally:
    """The running counts behind `SinkStats`; any thread may add."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts = {field.name: 0 for field in fields(SinkStats)}

    def add(self, outcome: Literal["published", "dropped", "delivered", "failed"], rows: int) -> None:
        with self._lock:
            self._counts[outcome] += rows
            self._counts[f"{outcome}_frames"] += 1

    def add_heartbeat(self) -> None:
        with self._lock:
            self._counts["heartbeats"] += 1

    def snapshot(self) -> SinkStats:
        with self._lock:
            return SinkStats(**self._counts)


def require_model(model: str) -> str:
    """Give back `model`, or raise `SettingsError`: here it comes from whoever sets things up, not from a record."""
    try:
        return check_model(model)
    except FrameInvalid as error:
        raise SettingsError(error.detail) from None
