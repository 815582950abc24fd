"""A broker in memory and workers that may die at any point, for `tests/property/test_recovery_machine.py`.

The broker keeps, per partition, a log, one committed offset with its text, and the outputs of committed transactions;
it takes a transaction whole or not at all, and refuses one of a member whose generation has passed. What must hold at
every commit and after every recovery is asserted here, by its name in docs/decisions/0014-recovery-is-exact.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.support.batch import Batch

from hydrophone.schemas.frame import Frame
from hydrophone.streams.checkpoint import Checkpoint
from hydrophone.streams.effects import DeadLettered, Effect, RowsArrived, RowsLate, WindowClosed
from hydrophone.streams.processor import Accounts, PartitionState, StreamRules, recover, step
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.snapshots import SnapshotBook, SnapshotRules, Wire, taken_up

__all__ = ["Broker", "Fenced", "Log", "Worker", "assert_balanced", "assert_same_as_batch", "identities"]

TOPIC = "t"


class Fenced(Exception):  # noqa: N818  # as in the code
    """The member's generation has passed: somebody else has its partitions."""


@dataclass
class Log:
    """One partition, and everything that was ever committed about it."""

    number: int
    records: list[Record] = field(default_factory=list)
    offset: int = 0
    text: str | None = None
    told: list[Effect] = field(default_factory=list)
    accounts: Accounts = field(default_factory=Accounts)
    advances: list[tuple[int, int]] = field(default_factory=list)
    """Where the clock moved the watermark to, durably: (next offset, watermark)."""

    at_commit: Any = None
    """The state as it was committed, which every recovery must come back to."""

    late_windows: set[tuple[str, int]] = field(default_factory=set)

    table: dict[bytes, bytes] = field(default_factory=dict)
    """The compacted topic of snapshots; records of transactions that were not committed never come here."""

    has_lost_snapshots: bool = False

    def checkpoint(self, window_ms: int) -> Checkpoint | None:
        return Checkpoint.decode(self.text, window_ms=window_ms)


@dataclass
class Held:
    """A partition as a worker has it, with what it did since its last commit. `recovered_from` is the state that had
    been committed when it was taken up: a zombie does not see what others commit later."""

    state: PartitionState
    recovered_from: Any = None
    waiting: list[Effect] = field(default_factory=list)
    advances: list[tuple[int, int]] = field(default_factory=list)
    reported: Accounts = field(default_factory=Accounts)
    is_dirty: bool = False
    book: SnapshotBook = field(default_factory=SnapshotBook)
    wires: list[Wire] = field(default_factory=list)


@dataclass
class Broker:
    """`generations` are those of the members: a rebalance that a member does not know of leaves it a former one."""

    logs: list[Log]
    window_ms: int
    owners: dict[int, int] = field(default_factory=dict)
    generations: dict[int, int] = field(default_factory=dict)

    def owned(self, worker: int) -> list[int]:
        return [number for number, owner in self.owners.items() if owner == worker]

    def transact(self, worker: "Worker") -> None:
        """Outputs, offsets and their texts of all of a member's partitions, or nothing. Raises `Fenced`."""
        if self.generations[worker.number] != worker.generation:
            raise Fenced
        for number, held in worker.held.items():
            if held.is_dirty:
                assert self.owners[number] == worker.number, "a member of this generation owns what it commits"
                self._take(self.logs[number], held)

    def _take(self, log: Log, held: Held) -> None:
        state, before = held.state, log.checkpoint(self.window_ms)
        log.offset, log.text = state.committable, state.checkpoint(self.window_ms).encode()
        now = log.checkpoint(self.window_ms)
        assert now is not None
        assert len(log.text) <= 4_096
        for wire in held.wires:
            log.table.pop(wire.key, None)
            if wire.value is not None:
                log.table[wire.key] = wire.value
        self._assert_rules(log, held, before, now)
        log.told += held.waiting
        log.advances += held.advances
        for name, value in asdict(state.accounts).items():
            setattr(log.accounts, name, getattr(log.accounts, name) + value - getattr(held.reported, name))
        if state.position >= state.replay_until:  # else windows are still being rebuilt, to what they were
            log.at_commit = picture(state)

    def _assert_rules(self, log: Log, held: Held, before: Checkpoint | None, now: Checkpoint) -> None:
        frontier = now.watermark_ms
        if before is not None:
            assert now.position >= before.position, "the position never falls"
            if before.watermark_ms is not None:
                assert frontier is not None, "the committed watermark is never forgotten"
                assert frontier >= before.watermark_ms, "the committed watermark never falls"
        assert log.offset <= now.position
        reached = -1 if frontier is None else frontier
        told = {(e.model, e.start_ms) for e in log.told if isinstance(e, WindowClosed)}
        for effect in held.waiting:
            if isinstance(effect, WindowClosed):
                key = (effect.model, effect.start_ms)
                assert key not in told, "each window exactly once"
                assert effect.end_ms <= reached, "R1: told windows lie behind the watermark"
                assert key not in log.late_windows, "R2: no row of a window is told late before the window is told"
        for window in held.state.windows.values():
            assert window.end_ms > reached, "R1: the watermark waits for windows to be told"
            assert window.resume_offset >= log.offset, "a replay begins at or before every open window"
        for effect in held.waiting:
            if isinstance(effect, RowsLate):
                frame = Frame.decode(effect.record.value or b"")
                starts = {int(frame.event_time_ms[row]) // self.window_ms * self.window_ms for row in effect.rows}
                assert all(start + self.window_ms <= reached for start in starts), "R2: late is what lies behind"
                log.late_windows |= {(frame.model, start) for start in starts}


@dataclass
class Worker:
    """One processor. What it knows dies with it; it comes back with what the broker says is committed."""

    number: int
    broker: Broker
    rules: Callable[[], StreamRules]
    snapshots: SnapshotRules
    generation: int = 0
    held: dict[int, Held] = field(default_factory=dict)

    def recover_all(self) -> None:
        """Forget everything, and take up what is this worker's by the broker's word."""
        self.generation = self.broker.generations[self.number]
        self.held = {}
        for number in self.broker.owned(self.number):
            self.recover(number)

    def recover(self, number: int) -> None:
        log = self.broker.logs[number]
        checkpoint = log.checkpoint(self.broker.window_ms)
        found = taken_up(checkpoint, log.offset, lambda: log.table, self.snapshots, self.rules().contract)
        assert not found.lost or log.has_lost_snapshots, "a snapshot that is counted on is whole"
        state = recover(TOPIC, number, found.offset, checkpoint, found.windows)
        assert checkpoint is None or state.watermark_ms == checkpoint.watermark_ms, "R3: no other watermark is durable"
        self.held[number] = Held(state, log.at_commit, book=SnapshotBook(found.written))
        self._assert_replayed(number)

    def read(self, number: int, count: int) -> int:
        """Process up to `count` records; gives how many there were."""
        log, held = self.broker.logs[number], self.held[number]
        batch = log.records[held.state.position : held.state.position + count]
        for record in batch:
            self._step(held, record, 0)
            held.is_dirty = True
            self._assert_replayed(number)
        return len(batch)

    def be_idle(self, number: int, now_ms: int) -> None:
        """Let the clock close windows; it may where the partition was read to its end."""
        log, held = self.broker.logs[number], self.held[number]
        if held.state.position < len(log.records) or not held.state.windows:
            return
        before = held.state.watermark_ms
        if self._step(held, PartitionEnd(number), now_ms):
            held.is_dirty = True  # otherwise it is not durable before something else is
        after = held.state.watermark_ms
        if after is not None and after != before:
            held.advances.append((held.state.position, after))

    def save(self, number: int, room: int) -> None:
        """Take snapshots of windows that have fallen behind, of about `room` bytes."""
        held = self.held[number]
        if not room:
            return
        held.book.round_ms = -1
        if wires := held.book.save(held.state, 0, self.snapshots, room):
            held.wires += wires
            held.is_dirty = True

    def commit(self) -> None:
        """Raises `Fenced`."""
        self.broker.transact(self)
        for held in self.held.values():
            if held.is_dirty:
                held.waiting, held.wires, held.advances, held.is_dirty = [], [], [], False
                held.reported = Accounts(**asdict(held.state.accounts))

    def _step(self, held: Held, event: Record | PartitionEnd, now_ms: int) -> Sequence[Effect]:
        before, replay_until = held.state.watermark_ms, held.state.replay_until
        held.state, effects = step(held.state, event, now_ms, self.rules())
        after = held.state.watermark_ms
        assert before is None or (after is not None and after >= before), "the watermark must not fall"
        if isinstance(event, Record) and event.offset < replay_until:
            assert not effects, "what was processed before a restart causes nothing again"
        assert_balanced(held.state.accounts)
        held.waiting += effects
        for effect in effects:
            if isinstance(effect, WindowClosed):
                held.wires += held.book.forget((effect.start_ms, effect.model))
        return effects

    def _assert_replayed(self, number: int) -> None:
        """The claim: once read up to the committed position, the state is the one that was committed."""
        state, expected = self.held[number].state, self.held[number].recovered_from
        if expected is not None and state.position == state.replay_until and not state.accounts.records:
            assert picture(state) == expected, "recovery is exact"


def picture(state: PartitionState) -> Any:
    """Everything of a state that decides what comes; not the counters, which begin anew in a new process."""
    windows = {
        key: (
            (w.first_offset, w.seen, w.rejected, w.duplicate, w.ignored_tensors),
            (w.contract, frozenset(w.frame_ids), tuple(identities(w.sample.sample()))),
        )
        for key, w in state.windows.items()
    }
    position = max(state.position, state.replay_until)
    return position, state.watermark_ms, dict(state.pending), windows


def identities(sample: Frame | None) -> list[tuple[str, int, float, float]]:
    """Rows with their values, so that no row can pass for another."""
    if sample is None:
        return []
    values = sample.layers["fc"]
    return [
        (origin.frame_id, origin.row, float(values[i, 0]), float(values[i, 1]))
        for i, origin in enumerate(sample.row_origins())
    ]


def assert_balanced(accounts: Accounts) -> None:
    assert accounts.records == (
        accounts.accepted + accounts.duplicate + accounts.dead_lettered + accounts.heartbeats
    ), accounts
    assert accounts.rows == accounts.windowed + accounts.late + accounts.rejected + accounts.quarantined, accounts


def assert_same_as_batch(log: Log, pending: PartitionState, batch: Batch, k: int) -> None:
    """Everything that was told of a partition against a batch over its log; every number, each exactly once."""
    windows = [effect for effect in log.told if isinstance(effect, WindowClosed)]
    assert sorted((w.model, w.start_ms) for w in windows) == sorted(batch.windows), "each window exactly once"
    for window in windows:
        expected = batch.windows[window.model, window.start_ms]
        counts = window.counts
        assert (counts.seen, counts.duplicate) == (expected.seen, expected.duplicate), window
        assert window.first_offset == expected.first_offset
        assert identities(window.sample) == [
            (*identity, float(identity[1]), float(expected.frames[identity[0]].layers["fc"][identity[1], 1]))
            for identity in expected.sample(k)
        ]
        assert counts.tested == len(expected.sample(k))
    late = [effect for effect in log.told if isinstance(effect, RowsLate)]
    assert [((log.number, e.record.offset), e.rows) for e in late] == list(batch.late.items()), "late, once each"
    judged = [
        ((log.number, e.record.offset), row)
        for e in log.told
        if isinstance(e, RowsArrived)
        for row in (range(len(e.frame)) if e.rows is None else e.rows.tolist())
    ]
    assert sorted(judged) == [(place, row) for place, rows in batch.judged.items() for row in rows], "judged once each"
    dead = [(e.record.offset, e.reason) for e in log.told if isinstance(e, DeadLettered)]
    assert dead == [(offset, reason) for (_, offset), reason in batch.dead.items()], "dead letters, once each"
    accounts = log.accounts
    assert_balanced(accounts)
    assert accounts.records == len(log.records)
    assert (accounts.dead_lettered, accounts.duplicate) == (len(batch.dead), batch.duplicates)
    assert accounts.heartbeats == batch.heartbeats
    assert accounts.late == sum(map(len, batch.late.values()))
    assert (accounts.quarantined, accounts.rejected) == (batch.quarantined, batch.rejected)
    assert accounts.windowed == sum(w.counts.seen for w in windows)
    left = pending.pending.values()
    assert accounts.late == sum(w.counts.late_since_previous for w in windows) + sum(p.late for p in left)
    assert accounts.quarantined == sum(w.counts.quarantined for w in windows) + sum(p.quarantined for p in left)
    assert accounts.rejected == sum(w.counts.rejected for w in windows) + sum(p.rejected for p in left)
