"""Tumbling windows of one partition: where an instant falls, what a window holds. When they close: `watermark.py`.

event time   0        60 s      120 s
             [ window )[ window )[ ...        aligned to the epoch, `[start, end)`, one grid for all models
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from hydrophone.schemas.score import Counts
from hydrophone.streams.checkpoint import Pending
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.sampling import BottomK

__all__ = ["OpenWindow", "snapshot_digest", "window_start"]

MAX_TRACE_LINKS = 32


def window_start(instant_ms: int, window_ms: int) -> int:
    """The start of the one window that holds `instant_ms`."""
    return instant_ms - instant_ms % window_ms


@dataclass(slots=True)
class OpenWindow:
    """A window that rows may still come to. Owned by its partition's state, changed by `step` alone.

    `contract` is what its reference needs, fixed when it opens: all its rows bring the same layers. `frame_ids` are in
    the order they came. Records before `covered_until` are in a snapshot of it.
    """

    model: str
    start_ms: int
    end_ms: int
    first_offset: int
    contract: Contract | None
    sample: BottomK
    covered_until: int = 0
    frame_ids: dict[str, None] = field(default_factory=dict)
    seen: int = 0
    rejected: int = 0
    duplicate: int = 0
    ignored_tensors: int = 0
    traceparents: list[str] = field(default_factory=list)

    @property
    def resume_offset(self) -> int:
        """Where reading must begin to have all of it."""
        return max(self.first_offset, self.covered_until)

    def close(self, *, partition: int, close_offset: int, pending: Pending) -> WindowClosed:
        """What is left of the window once no row of it can come any more."""
        sample = self.sample.sample()
        return WindowClosed(
            self.model,
            self.start_ms,
            self.end_ms,
            partition,
            self.first_offset,
            close_offset,
            Counts(
                seen=self.seen,
                tested=0 if sample is None else len(sample),
                rejected=self.rejected + pending.rejected,
                quarantined=pending.quarantined,
                duplicate=self.duplicate,
                late_since_previous=pending.late,
                ignored_tensors=self.ignored_tensors,
            ),
            sample,
            tuple(self.traceparents),
        )

    def link(self, traceparent: str) -> None:
        """Remember a producer's trace; a few are enough to find the way."""
        if len(self.traceparents) < MAX_TRACE_LINKS and traceparent not in self.traceparents:
            self.traceparents.append(traceparent)


def snapshot_digest(windows: Iterable[OpenWindow]) -> str:
    """Names a set of snapshots: which windows, and up to where each."""
    facts = sorted((window.start_ms, window.model, window.covered_until) for window in windows)
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
