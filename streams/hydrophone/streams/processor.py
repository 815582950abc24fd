"""The heart: `step(state, record, now) -> (state, effects)`. No clock, no broker, no test runs here.

A score is a pure function of the set of rows of its window: everything here is a function of the records of one
partition in their order, and the sample within a window does not depend on even that. Four fates of a row, in order:

    dated in the future      quarantined   counted, left out, does not move the watermark
    its window has closed    late          the record goes to `late` with the rows' indices
    not finite               rejected      counted, left out
    otherwise                windowed

A heavy model's records are spread over partitions (`shards.py`): then what closes here is one partition's summary of a
window, and `merging.py` makes the window of the summaries.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.errors import FrameInvalid, RecordRejected
from hydrophone.schemas.frame import Frame, Heartbeat, decode
from hydrophone.schemas.identity import FramePriorities
from hydrophone.schemas.signature import Verify
from hydrophone.streams.checkpoint import Checkpoint, Pending, Snapshots
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import DeadLettered, Effect, RowsArrived, RowsLate, SummaryClosed, TimePassed
from hydrophone.streams.partials import check_rows
from hydrophone.streams.record import UNREADABLE_HEADERS, PartitionEnd, Record
from hydrophone.streams.sampling import BottomK
from hydrophone.streams.shards import SHARD_MARK, ShardPlans
from hydrophone.streams.watermark import TimeRules
from hydrophone.streams.windows import OpenWindow, snapshot_digest, window_start

__all__ = ["Accounts", "PartitionState", "StreamRules", "recover", "step"]


@dataclass(frozen=True, slots=True)
class StreamRules:
    """What `step` goes by. `contract(model, window_start_ms)`: what the reference in force needs, None without one.
    `verify` looks at every record's signature; None: at none. `shards` may grow while records come, but no plan reaches
    back to a window that is open."""

    time: TimeRules
    contract: Callable[[str, int], Contract | None]
    priorities: FramePriorities
    k: int = 512
    verify: Verify | None = None
    shards: ShardPlans = field(default_factory=ShardPlans)


@dataclass(slots=True)
class Accounts:
    """Everything that ever came in, by what became of it. Two identities hold at any time:

    records = accepted + duplicate + dead_lettered + heartbeats, rows = windowed + late + rejected + quarantined
    (`rows` are those of accepted records, less what their windows had counted before: a record is a duplicate when all
    its open windows had). Records seen again after a restart are counted once.
    """

    records: int = 0
    accepted: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    heartbeats: int = 0
    rows: int = 0
    windowed: int = 0
    late: int = 0
    rejected: int = 0
    quarantined: int = 0


@dataclass(slots=True)
class PartitionState:
    """One partition's open windows and time. Belongs to `step`: who hands it over must not use it again.

    `position` is the next offset to process. Records before `replay_until` were processed before a restart: they
    rebuild windows, and whatever else they caused has been told. `told_ms` is the latest end of a window that the
    watermark was told to have passed; nobody is told while no model is sharded.
    """

    topic: str
    partition: int
    position: int = 0
    replay_until: int = 0
    watermark_ms: int | None = None
    windows: dict[tuple[int, str], OpenWindow] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    accounts: Accounts = field(default_factory=Accounts)
    told_ms: int | None = None

    @property
    def committable(self) -> int:
        """Where a replay must begin: the first record of the oldest open window, or what its snapshot does not cover.

        A window may be covered further than a replay has come; those that it has yet to rebuild begin at its place.
        """
        return min([self.position, *(window.resume_offset for window in self.windows.values())])

    def checkpoint(self, window_ms: int) -> Checkpoint:
        position = max(self.position, self.replay_until)
        return Checkpoint(window_ms, self.watermark_ms, position, dict(self.pending), self._snapshots())

    def _snapshots(self) -> Snapshots | None:
        covered = [window for window in self.windows.values() if window.covered_until]
        if not covered:
            return None
        first = min(window.first_offset for window in self.windows.values())
        return Snapshots(len(covered), snapshot_digest(covered), min(self.position, first))

    def totals(self) -> dict[str, int]:
        """The accounts by name."""
        return asdict(self.accounts)


def recover(
    topic: str,
    partition: int,
    offset: int,
    checkpoint: Checkpoint | None,
    windows: Mapping[tuple[int, str], OpenWindow] = MappingProxyType({}),
) -> PartitionState:
    """The state to go on with from a committed offset: windows of snapshots alone; reading on brings the rest."""
    if checkpoint is None:
        return PartitionState(topic, partition, offset, offset)
    return PartitionState(
        topic,
        partition,
        offset,
        checkpoint.position,
        checkpoint.watermark_ms,
        dict(windows),
        dict(checkpoint.pending),
    )


def step(
    state: PartitionState, event: Record | PartitionEnd, now_ms: int, rules: StreamRules
) -> tuple[PartitionState, list[Effect]]:
    """Take one record, or the end of the partition, into account. `now_ms` matters to an idle partition alone."""
    if isinstance(event, PartitionEnd):
        if state.position < state.replay_until:  # a broker just back can show an end before what was processed
            return state, []
        # Sharded windows wait for every partition: one that never held a record must not hold them up.
        before = 0 if state.watermark_ms is None and rules.shards else state.watermark_ms
        state.watermark_ms = rules.time.when_idle(before, now_ms)
        return state, _close_due(state, rules)
    state.position = event.offset + 1
    is_new = event.offset >= state.replay_until
    try:
        effects = _take(state, event, rules, is_new=is_new)
    except RecordRejected as refusal:
        if not is_new:
            return state, []
        state.accounts.records += 1
        state.accounts.dead_lettered += 1
        return state, [DeadLettered(event, refusal.reason, refusal.detail)]
    state.accounts.records += is_new
    return state, effects


def _take(state: PartitionState, record: Record, rules: StreamRules, *, is_new: bool) -> list[Effect]:
    if record.headers == UNREADABLE_HEADERS:
        raise FrameInvalid("bad_headers", "a header's name is not UTF-8; the headers are left out of this dead letter")
    if record.value is None:
        raise FrameInvalid("no_value", "an activations record carries a frame; got a tombstone")
    if rules.verify is not None:  # first of all: the decoder is not for strangers
        rules.verify(record.key, record.value, record.headers)
    frame = decode(record.value)
    is_shard = record.key != frame.model.encode()
    if is_shard:
        _check_shard_key(record.key, frame.model)
    if isinstance(frame, Heartbeat):
        state.accounts.heartbeats += is_new
        if frame.event_time_ms <= rules.time.latest_credible(record.timestamp_ms):
            state.watermark_ms = rules.time.after(state.watermark_ms, frame.event_time_ms)
        return _close_due(state, rules)
    return _take_frame(state, record, frame, rules, is_new=is_new, is_shard=is_shard)


def _check_shard_key(key: bytes | None, model: str) -> None:
    name, _, shard = (key or b"").partition(SHARD_MARK.encode())
    if name != model.encode() or not shard.isdigit():
        raise FrameInvalid("key_mismatch", f"the key must be the model `{model}`, or a shard of it; got {key!r:.80}")


def _take_frame(
    state: PartitionState, record: Record, frame: Frame, rules: StreamRules, *, is_new: bool, is_shard: bool
) -> list[Effect]:
    if frame.origins is not None:  # a publisher could claim the rows of another
        frame = frame.with_origins(None)
    size = rules.time.window_ms
    times = _Times.of(frame.event_time_ms, rules.time.latest_credible(record.timestamp_ms))
    parts = times.parts(size)
    if is_shard:
        _check_plan(frame.model, parts, rules)
    if rules.shards and any(rules.shards.is_merged(frame.model, start) for start in parts):
        check_rows(frame)
    contracts = {start: _contract(state, frame, start, rules) for start in parts}
    frontier = state.watermark_ms
    open_parts = {s: rows for s, rows in parts.items() if frontier is None or s + size > frontier}
    to_fill = _uncovered(state, frame, open_parts, record.offset)
    new_parts = _new_parts(state, frame, to_fill)
    if open_parts and not new_parts:
        state.accounts.duplicate += is_new
        return []
    late = _late_rows(parts, open_parts, len(frame))
    repeated = sum(_size(rows, frame) for start, rows in open_parts.items() if start not in new_parts)
    tally = _Tally(len(frame) - repeated, late=len(late), quarantined=times.in_future(), impossible=times.impossible())
    views: dict[int, _View] = {}
    for start, rows in new_parts.items():
        window = _open(state, frame.model, start, record.offset, contracts[start], rules)
        known = id(window.contract)
        if known not in views:
            views[known] = _view(frame, window.contract, rules)
        _add(window, record, views[known], rows, tally)
    if is_new:
        tally.book(state, frame.model)
    latest = times.latest_usable()
    if latest is not None:
        state.watermark_ms = rules.time.after(state.watermark_ms, latest)
    effects: list[Effect] = []
    if is_new:
        judged = {start: rows for start, rows in parts.items() if start in new_parts or start not in open_parts}
        effects += _arrivals(record, frame, judged, contracts)
        effects += [RowsLate(record, late)] if late else []
    return effects + _close_due(state, rules)


def _check_plan(model: str, starts: Iterable[int], rules: StreamRules) -> None:
    """What comes under a shard's key is part of a window; only a window that will be merged may be cut in parts."""
    unplanned = [start for start in starts if not rules.shards.is_merged(model, start)]
    if unplanned:
        raise FrameInvalid(
            "unplanned_shard",
            f"no plan shards `{model}` at {min(unplanned)} ms UTC; announce one with `hydrophone shards set`, or "
            "publish under the plain key",
        )


def _contract(state: PartitionState, frame: Frame, start: int, rules: StreamRules) -> Contract | None:
    """What the window's rows must bring, None without a reference. Raises `FrameInvalid` if this frame does not."""
    window = state.windows.get((start, frame.model))
    known = rules.contract(frame.model, start) if window is None else window.contract
    if known is not None:
        known.check(frame)
    return known


@dataclass(frozen=True, slots=True)
class _View:
    """A frame as one contract sees it: the layers to keep, which rows are finite in them (None: all), and priorities.

    `priorities` is None where no reference says which layers to keep: then rows are counted and not kept.
    """

    frame: Frame
    good: NDArray[np.bool_] | None
    priorities: NDArray[np.uint64] | None
    ignored: int


def _view(frame: Frame, contract: Contract | None, rules: StreamRules) -> _View:
    if contract is None:
        return _View(frame, frame.finite_rows(), None, 0)
    good = frame.finite_rows(contract.sizes)
    ignored = len(frame.layers) - len(contract.sizes)
    kept = frame.only(contract.sizes) if ignored else frame
    return _View(kept, good, rules.priorities(frame.frame_id, len(frame)), ignored)


Parts = Mapping[int, NDArray[np.intp] | None]
"""Window start to the rows that fall into it; None stands for all rows of the frame."""


@dataclass(frozen=True, slots=True)
class _Times:
    """When a frame's rows were inferred, and the latest instant that is believed. Nearly always all are usable."""

    values: NDArray[np.int64]
    earliest: int
    latest: int
    credible: int

    @classmethod
    def of(cls, values: NDArray[np.int64], credible: int) -> "_Times":
        return cls(values, int(np.minimum.reduce(values)), int(np.maximum.reduce(values)), credible)

    def parts(self, size: int) -> Parts:
        start = window_start(self.earliest, size)
        if self.earliest >= 0 and self.latest <= self.credible and start == window_start(self.latest, size):
            return {start: None}
        usable = np.flatnonzero((self.values >= 0) & (self.values <= self.credible))
        starts = self.values[usable] - self.values[usable] % size
        order = np.argsort(starts, kind="stable")
        found, first = np.unique(starts[order], return_index=True)
        return dict(zip(found.tolist(), np.split(usable[order], first[1:]), strict=True)) if usable.size else {}

    def in_future(self) -> int:
        return int((self.values > self.credible).sum()) if self.latest > self.credible else 0

    def impossible(self) -> int:
        return int((self.values < 0).sum()) if self.earliest < 0 else 0

    def latest_usable(self) -> int | None:
        """The latest time that moves the watermark; None when every row's is impossible or in the future."""
        latest = self.latest
        if latest > self.credible:
            usable = self.values[self.values <= self.credible]
            latest = int(usable.max()) if usable.size else -1
        return latest if latest >= 0 else None


def _uncovered(state: PartitionState, frame: Frame, parts: Parts, offset: int) -> Parts:
    """Without the windows whose snapshot holds this record: only a replay comes by it again."""
    if offset >= state.replay_until:
        return parts
    windows = {start: state.windows.get((start, frame.model)) for start in parts}
    return {s: rows for s, rows in parts.items() if (w := windows[s]) is None or offset >= w.covered_until}


def _new_parts(state: PartitionState, frame: Frame, parts: Parts) -> Parts:
    """The open windows that have not counted this frame; the others note that it came again.

    Each window decides for itself: what it holds must not depend on its neighbours, which a replay may not see.
    """
    new: dict[int, NDArray[np.intp] | None] = {}
    for start, rows in parts.items():
        window = state.windows.get((start, frame.model))
        if window is not None and frame.frame_id in window.frame_ids:
            window.duplicate += 1
        else:
            new[start] = rows
    return new


def _size(rows: NDArray[np.intp] | None, frame: Frame) -> int:
    return len(frame) if rows is None else rows.size


def _open(
    state: PartitionState, model: str, start: int, offset: int, contract: Contract | None, rules: StreamRules
) -> OpenWindow:
    window = state.windows.get((start, model))
    if window is None:
        window = OpenWindow(model, start, start + rules.time.window_ms, offset, contract, BottomK(rules.k))
        state.windows[start, model] = window
    return window


@dataclass(slots=True)
class _Tally:
    """What became of one frame's rows. `impossible` are those rejected for their time, which belong to no window."""

    rows: int
    windowed: int = 0
    late: int = 0
    rejected: int = 0
    quarantined: int = 0
    impossible: int = 0

    def book(self, state: PartitionState, model: str) -> None:
        accounts = state.accounts
        accounts.accepted += 1
        accounts.rows += self.rows
        accounts.windowed += self.windowed
        accounts.late += self.late
        accounts.rejected += self.rejected + self.impossible
        accounts.quarantined += self.quarantined
        if self.late or self.quarantined or self.impossible:
            late, quarantined, rejected = state.pending.get(model, Pending())
            state.pending[model] = Pending(late + self.late, quarantined + self.quarantined, rejected + self.impossible)


def _add(window: OpenWindow, record: Record, view: _View, rows: NDArray[np.intp] | None, tally: _Tally) -> None:
    """Put a frame's rows for this window into it."""
    frame, good = view.frame, view.good
    offered = _size(rows, frame)
    if good is not None:
        rows = np.flatnonzero(good) if rows is None else rows[good[rows]]
    kept = len(frame) if rows is None else rows.size
    window.frame_ids[frame.frame_id] = None
    window.seen += kept
    window.rejected += offered - kept
    window.ignored_tensors += view.ignored
    tally.windowed += kept
    tally.rejected += offered - kept
    for name, value in record.headers:
        if name == "traceparent" and value is not None:
            window.link(value.decode("ascii", "replace"))
    if kept and view.priorities is not None and record.value is not None:
        chosen = view.priorities if rows is None else view.priorities[rows]
        window.sample.offer(
            frame, rows, chosen, partition=record.partition, offset=record.offset, record_bytes=len(record.value)
        )


def _late_rows(parts: Parts, open_parts: Parts, rows: int) -> tuple[int, ...]:
    late: list[int] = []
    for start, members in parts.items():
        if start not in open_parts:
            late.extend(range(rows) if members is None else members.tolist())
    return tuple(sorted(late))


def _arrivals(
    record: Record, frame: Frame, parts: Parts, contracts: Mapping[int, Contract | None]
) -> list[RowsArrived]:
    """One for each contract that asks for verdicts: what is said of a record is said at once."""
    starts: dict[int, list[int]] = {}
    for start in parts:
        contract = contracts[start]
        if contract is not None and contract.is_judged:
            starts.setdefault(id(contract), []).append(start)
    return [RowsArrived(record, frame, mine[0], _rows_of(parts, mine)) for mine in starts.values()]


def _rows_of(parts: Parts, starts: Iterable[int]) -> NDArray[np.intp] | None:
    together = [rows for start in starts if (rows := parts[start]) is not None]
    return np.sort(np.concatenate(together)) if together else None


def _close_due(state: PartitionState, rules: StreamRules) -> list[Effect]:
    """Close every window that ends at or before the watermark, oldest first."""
    watermark = state.watermark_ms
    if watermark is None:
        return []
    due = sorted(key for key, window in state.windows.items() if window.end_ms <= watermark)
    effects: list[Effect] = []
    for key in due:
        window = state.windows.pop(key)
        pending = state.pending.pop(window.model, Pending())
        closed = window.close(partition=state.partition, close_offset=state.position, pending=pending)
        effects.append(SummaryClosed(closed) if rules.shards.is_merged(window.model, window.start_ms) else closed)
    return effects + _time_passed(state, watermark, rules) if rules.shards else effects


def _time_passed(state: PartitionState, watermark_ms: int, rules: StreamRules) -> list[Effect]:
    reached = window_start(watermark_ms, rules.time.window_ms)
    if state.told_ms is not None and reached <= state.told_ms:
        return []
    state.told_ms = reached
    return [TimePassed(state.partition, reached)]
