"""The second stage: `merge_step(state, record) -> (state, effects)` makes the windows of sharded models whole.

Each partition of `activations` writes what it has of a window, a summary, and later that its time has passed the
window's end. When every partition's time has, the window is closed: counts add up, and of all sampled rows the k of
smallest priority are those that one partition alone would have kept. No clock, no broker, no test runs here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from hydrophone.schemas.errors import FrameInvalid, RecordRejected
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.identity import origin_priorities
from hydrophone.schemas.partials import WatermarkMarker
from hydrophone.schemas.score import Counts, SourcePart
from hydrophone.streams.checkpoint import MergeCheckpoint
from hydrophone.streams.effects import DeadLettered, Effect, WindowClosed
from hydrophone.streams.partials import Chunk, read_partial, summary_of
from hydrophone.streams.record import Record
from hydrophone.streams.sampling import BottomK
from hydrophone.streams.windows import MAX_TRACE_LINKS

__all__ = ["MergeRules", "MergeState", "merge", "merge_step", "recover_merge"]


@dataclass(frozen=True, slots=True)
class MergeRules:
    window_ms: int
    sampling_key: bytes
    k: int = 512


@dataclass(slots=True)
class _Gathering:
    """What came of one window so far, by partition: whole summaries, and chunks by number."""

    end_ms: int
    first_offset: int
    chunks: dict[int, dict[int, Chunk]] = field(default_factory=dict)
    summaries: dict[int, WindowClosed] = field(default_factory=dict)


@dataclass(slots=True)
class MergeState:
    """One partition of `partials`. Belongs to `merge_step`: who hands it over must not use it again.

    `watermarks` are those of the partitions of `activations`; `partitions` is how many there are, as they say.
    """

    topic: str
    partition: int
    position: int = 0
    replay_until: int = 0
    closed_ms: int | None = None
    partitions: int = 0
    watermarks: dict[int, int] = field(default_factory=dict)
    windows: dict[tuple[int, str], _Gathering] = field(default_factory=dict)

    @property
    def committable(self) -> int:
        """Where a replay must begin: the first summary of the oldest open window."""
        return min((window.first_offset for window in self.windows.values()), default=self.position)

    def checkpoint(self, window_ms: int) -> MergeCheckpoint:
        position = max(self.position, self.replay_until)
        return MergeCheckpoint(window_ms, position, self.closed_ms, self.partitions, dict(self.watermarks))

    def totals(self) -> dict[str, int]:
        """Records and rows were accounted for where they came in."""
        return {}


def recover_merge(topic: str, partition: int, offset: int, checkpoint: MergeCheckpoint | None) -> MergeState:
    """The state to go on with from a committed offset: what is open comes again."""
    if checkpoint is None:
        return MergeState(topic, partition, offset, offset)
    return MergeState(
        topic,
        partition,
        offset,
        checkpoint.position,
        checkpoint.closed_ms,
        checkpoint.partitions,
        dict(checkpoint.watermarks),
    )


def merge_step(state: MergeState, record: Record, rules: MergeRules) -> tuple[MergeState, list[Effect]]:
    """Take one record of `partials` into account."""
    state.position = record.offset + 1
    is_new = record.offset >= state.replay_until
    try:
        said = read_partial(record)
        if isinstance(said, WatermarkMarker):
            return state, _pass_time(state, said, rules)
        _gather(state, said, record, is_new=is_new)
    except RecordRejected as refusal:
        return state, [DeadLettered(record, refusal.reason, refusal.detail)] if is_new else []
    return state, []


def _gather(state: MergeState, chunk: Chunk, record: Record, *, is_new: bool) -> None:
    said = chunk.said
    if state.closed_ms is not None and said.window.end_ms <= state.closed_ms:
        if is_new:
            raise RecordRejected("late_summary", f"the window had been closed at {state.closed_ms} ms UTC: {said!r}")
        return
    source, place = said.part.partition, (said.window.start_ms, said.model)
    window = state.windows.get(place)
    if window is None:
        window = state.windows[place] = _Gathering(said.window.end_ms, record.offset)
    if source in window.summaries:  # without transactions a summary may come twice, and says the same
        return
    chunks = window.chunks.setdefault(source, {})
    chunks.setdefault(said.chunk, chunk)
    if len(chunks) == said.chunks:
        del window.chunks[source]
        window.summaries[source] = summary_of([chunks[number] for number in sorted(chunks)])


def _pass_time(state: MergeState, marker: WatermarkMarker, rules: MergeRules) -> list[Effect]:
    """Close what ends at or before every partition's watermark, oldest first."""
    state.partitions = max(state.partitions, marker.partitions)
    before = state.watermarks.get(marker.partition, marker.watermark_ms)
    state.watermarks[marker.partition] = max(before, marker.watermark_ms)
    if len(state.watermarks) < state.partitions:
        return []
    passed = min(state.watermarks.values())
    if state.closed_ms is not None and passed <= state.closed_ms:
        return []
    state.closed_ms = passed
    due = sorted(key for key, window in state.windows.items() if window.end_ms <= passed)
    gathered = [state.windows.pop(key).summaries.values() for key in due]
    # Only whole summaries: where a chunk is missing, one was dead-lettered.
    return [merge(summaries, rules) for summaries in gathered if summaries]


def merge(summaries: Iterable[WindowClosed], rules: MergeRules) -> WindowClosed:
    """One window of its summaries, at least one, each of other partitions; in any order and grouping."""
    ordered = sorted(summaries, key=lambda summary: _parts(summary)[0].partition)
    sample = _merged_rows([summary.sample for summary in ordered if summary.sample is not None], rules)
    total = {name: sum(getattr(summary.counts, name) for summary in ordered) for name in Counts.model_fields}
    traceparents = dict.fromkeys(text for summary in ordered for text in summary.traceparents)
    parts = sorted((part for summary in ordered for part in _parts(summary)), key=lambda part: part.partition)
    return replace(
        ordered[0],
        counts=Counts(**total | {"tested": 0 if sample is None else len(sample)}),
        sample=sample,
        traceparents=tuple(traceparents)[:MAX_TRACE_LINKS],
        parts=tuple(parts),
    )


def _parts(summary: WindowClosed) -> tuple[SourcePart, ...]:
    return summary.parts or (
        SourcePart(partition=summary.partition, first_offset=summary.first_offset, close_offset=summary.close_offset),
    )


def _merged_rows(samples: Iterable[Frame], rules: MergeRules) -> Frame | None:
    """The rows of smallest priority, each once. None where partitions kept what does not go together: a window has one
    reference, so one set of layers, unless workers disagree about it."""
    sample = BottomK(rules.k)
    known: set[tuple[str, int]] = set()
    for frame in samples:
        fresh = _unknown(frame, known)
        if fresh is not None:
            sample.add(fresh, origin_priorities(fresh.row_origins(), rules.sampling_key))
    try:
        return sample.sample()
    except FrameInvalid:
        return None


def _unknown(frame: Frame, known: set[tuple[str, int]]) -> Frame | None:
    """The rows that did not come from another partition: a frame may, if it was sent again under another key."""
    identities = [(origin.frame_id, origin.row) for origin in frame.row_origins()]
    fresh = [row for row, identity in enumerate(identities) if identity not in known]
    known.update(identities)
    if len(fresh) == len(frame):
        return frame
    return frame.take(np.array(fresh)) if fresh else None
