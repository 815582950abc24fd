"""The stream again as one batch: slow, row by row, from the definitions. It shares no code with `streams`.

A log goes in, whole; out come the windows, and what became of every row that is in none of them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame, Heartbeat, concat, decode

__all__ = ["Batch", "BatchRules", "BatchWindow", "LogRecord", "batch_of"]


class LogRecord(Protocol):
    """What a log holds: read back from a broker, or made up."""

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def timestamp_ms(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...


Rows = tuple[int, ...]


@dataclass(frozen=True)
class BatchRules:
    """`sizes` are the features of each layer a model's frames must bring; a model without an entry has no reference.

    `changes`: the same from a window's start on, by model, in the order of time; it replaces the model's `sizes`.
    `sharded_from`: the first window start from which a model's frames may come under keys `model#shard`.
    """

    window_ms: int
    lateness_ms: int
    future_skew_ms: int
    k: int
    sampling_key: bytes
    sizes: Mapping[str, Mapping[str, int]]
    changes: Mapping[str, Sequence[tuple[int, Mapping[str, int]]]] = field(default_factory=dict)
    sharded_from: Mapping[str, int] = field(default_factory=dict)

    def needs(self, model: str, start_ms: int) -> Mapping[str, int] | None:
        """What a window's rows must bring; None without a reference."""
        found = self.sizes.get(model)
        for since_ms, sizes in self.changes.get(model, ()):
            if since_ms <= start_ms:
                found = sizes
        return found


@dataclass
class BatchWindow:
    """Rows as `(priority, frame id, row, partition, offset)`, with the frame they came in."""

    model: str
    start_ms: int
    partition: int
    first_offset: int
    seen: int = 0
    rejected: int = 0
    duplicate: int = 0
    rows: list[tuple[int, str, int, int, int]] = field(default_factory=list)
    frames: dict[str, Frame] = field(default_factory=dict)

    def sample(self, k: int) -> list[tuple[str, int]]:
        """Identities of the k rows of smallest priority, in that order."""
        return [(frame_id, row) for _, frame_id, row, _, _ in sorted(self.rows)[:k]]

    def sampled_rows(self, k: int) -> Frame:
        """The same rows themselves."""
        return concat([self.frames[name].take(np.array([row])) for name, row in self.sample(k)])


@dataclass
class Batch:
    """`late`, `dead` and `judged` by (partition, offset): the late rows, the reason, and the rows that are judged one
    by one where their model's reference can."""

    windows: dict[tuple[str, int], BatchWindow] = field(default_factory=dict)
    late: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    dead: dict[tuple[int, int], str] = field(default_factory=dict)
    judged: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    duplicates: int = 0
    heartbeats: int = 0
    rejected: int = 0
    quarantined: int = 0


def batch_of(
    log: Iterable[LogRecord],
    rules: BatchRules,
    advances: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    late: Mapping[tuple[int, int], Rows] | None = None,
) -> Batch:
    """Everything the log comes to. Records of a partition must be in the order of their offsets.

    A clock that closed idle windows leaves no trace in the log: `advances`, by partition, say where it moved the
    watermark to, before the record of which offset; or, where that is not known, `late` says which rows were, by place.
    """
    batch = Batch()
    watermarks: dict[int, int] = {}
    for record in log:
        for offset, reached in (advances or {}).get(record.partition, ()):
            if offset <= record.offset:
                watermarks[record.partition] = max(reached, watermarks.get(record.partition, reached))
        try:
            frame = _frame(record, rules)
        except FrameInvalid as refusal:
            batch.dead[record.partition, record.offset] = refusal.reason
            continue
        latest_credible = record.timestamp_ms + rules.future_skew_ms
        if isinstance(frame, Heartbeat):
            batch.heartbeats += 1
            times = [frame.event_time_ms]
        else:
            given = None if late is None else late.get((record.partition, record.offset), ())
            if not _add(batch, record, frame, watermarks.get(record.partition), given, rules):
                continue
            times = [int(time) for time in frame.event_time_ms if time >= 0]
        for time in times:
            if time <= latest_credible:
                before = watermarks.get(record.partition)
                reached = time - rules.lateness_ms
                watermarks[record.partition] = reached if before is None or reached > before else before
    return batch


def _frame(record: LogRecord, rules: BatchRules) -> Frame | Heartbeat:
    if record.value is None:
        raise FrameInvalid("no_value", "")
    frame = decode(record.value)
    name, _, shard = (record.key or b"").decode().partition("#")
    if name != frame.model:
        raise FrameInvalid("key_mismatch", "")
    if isinstance(frame, Heartbeat):
        return frame
    credible = record.timestamp_ms + rules.future_skew_ms
    size = rules.window_ms
    starts = sorted({int(time) // size * size for time in frame.event_time_ms if 0 <= time <= credible})
    if shard and any(start < rules.sharded_from.get(name, start + 1) for start in starts):
        raise FrameInvalid("unplanned_shard", "")
    for start in starts:
        for name, features in (rules.needs(frame.model, start) or {}).items():
            if name not in frame.layers:
                raise FrameInvalid(f"missing_tensor:layer.{name}", "")
            if frame.layers[name].shape[1] != features:
                raise FrameInvalid("wrong_dimension", "")
    return frame


def _add(
    batch: Batch, record: LogRecord, frame: Frame, watermark: int | None, given: Rows | None, rules: BatchRules
) -> bool:
    """Each row to its fate; False, and nothing done, when all open windows of the frame have counted it before."""
    if given is not None:
        watermark = None
    fates = [_fate(int(time), record.timestamp_ms, watermark, rules) for time in frame.event_time_ms]
    for row in given or ():
        fates[row] = "late"
    open_starts = {fate for fate in fates if isinstance(fate, int)}
    counted = {
        start
        for start in open_starts
        if (window := batch.windows.get((frame.model, start))) is not None and frame.frame_id in window.frames
    }
    for start in counted:
        batch.windows[frame.model, start].duplicate += 1
    if counted and counted == open_starts:
        batch.duplicates += 1
        return False
    late = tuple(row for row, fate in enumerate(fates) if fate == "late")
    if late:
        batch.late[record.partition, record.offset] = late
    judged = tuple(
        row
        for row, fate in enumerate(fates)
        if fate not in ("impossible", "future")
        and fate not in counted
        and rules.needs(frame.model, int(frame.event_time_ms[row]) // rules.window_ms * rules.window_ms) is not None
    )
    if judged:
        batch.judged[record.partition, record.offset] = judged
    batch.rejected += fates.count("impossible")
    batch.quarantined += fates.count("future")
    priorities = _priorities(frame, rules.sampling_key)
    for row, fate in enumerate(fates):
        if isinstance(fate, int) and fate not in counted:
            _put(batch, record, frame, row, fate, priorities[row], rules)
    return True


def _fate(time: int, timestamp_ms: int, watermark: int | None, rules: BatchRules) -> int | str:
    """The start of the window it falls into, or why it falls into none."""
    start = time // rules.window_ms * rules.window_ms
    if time < 0:
        return "impossible"
    if time > timestamp_ms + rules.future_skew_ms:
        return "future"
    return "late" if watermark is not None and start + rules.window_ms <= watermark else start


def _put(batch: Batch, record: LogRecord, frame: Frame, row: int, start: int, priority: int, rules: BatchRules) -> None:
    place = (frame.model, start)
    if place not in batch.windows:
        batch.windows[place] = BatchWindow(frame.model, start, record.partition, record.offset)
    window = batch.windows[place]
    window.frames[frame.frame_id] = frame
    needed = rules.needs(frame.model, start)
    if not _is_finite(frame, row, needed):
        window.rejected += 1
        batch.rejected += 1
        return
    window.seen += 1
    if needed is not None:
        window.rows.append((priority, frame.frame_id, row, record.partition, record.offset))


def _is_finite(frame: Frame, row: int, sizes: Mapping[str, int] | None) -> bool:
    arrays = [frame.layers[name] for name in (frame.layers if sizes is None else sizes)]
    arrays += [] if frame.output is None else [frame.output]
    return all(bool(np.isfinite(array[row]).all()) for array in arrays)


def _priorities(frame: Frame, key: bytes) -> list[int]:
    """Design section 5: the row-th 64-bit output of Philox keyed by BLAKE2b-128(key, frame_id)."""
    digest = hashlib.blake2b(frame.frame_id.encode(), key=key, digest_size=16).digest()
    generator = np.random.Philox(key=np.frombuffer(digest, "<u8"))
    return [int(generator.random_raw()) for _ in range(len(frame))]
