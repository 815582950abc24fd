"""Recovery is exact: a machine of several partitions and workers, driven into whatever hypothesis can think of.

Rules append records (in order, out of order, late, from the future, repeated, poisoned, heartbeats), let workers read,
commit, take snapshots of windows, crash, be idle, lose partitions with or without a word, and announce references. A
commit may fail, or happen without the worker knowing; snapshots may be lost. The rules R1 to R3 and the claim of
docs/decisions/0014-recovery-is-exact.md are asserted at every commit and every recovery (`tests/support/recovery.py`);
in the end, when everything was read, what was told is what a batch over the logs computes, each thing exactly once,
and every window is rebuilt by `replay` from the offsets it names.

HYDROPHONE_THOROUGH=1 (`make recovery`) runs sixty times as many examples.
"""

import os
from collections.abc import Mapping
from typing import Final

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.batch import BatchRules, batch_of
from tests.support.events import window_score
from tests.support.frames import frame_id
from tests.support.recovery import TOPIC, Broker, Fenced, Log, Worker, assert_same_as_batch, identities

from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.identity import FramePriorities
from hydrophone.schemas.score import Source
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.processor import StreamRules
from hydrophone.streams.record import Record
from hydrophone.streams.replay import rebuild
from hydrophone.streams.snapshots import SnapshotRules
from hydrophone.streams.watermark import TimeRules

KEY: Final = b"a secret of the test"
WINDOW_MS: Final = 10
LATENESS_MS: Final = 12
SKEW_MS: Final = 3
IDLE_MS: Final = 5
K: Final = 5
SNAPSHOTS: Final = SnapshotRules(1, K, KEY, "the key's id")
WIDTH: Final = 2
PARTITIONS: Final = 2
WORKERS: Final = 3
TIME: Final = TimeRules(WINDOW_MS, LATENESS_MS, SKEW_MS, 0, IDLE_MS)
NARROW: Final = {"fc": WIDTH}
WIDE: Final = {"fc": WIDTH, "conv": WIDTH}
KNOWN: Final = {f"{model}{partition}": NARROW for model in "ab" for partition in range(PARTITIONS)}
THOROUGH: Final = bool(os.environ.get("HYDROPHONE_THOROUGH"))

partitions = st.integers(0, PARTITIONS - 1)
workers = st.integers(0, WORKERS - 1)
models = st.sampled_from(("a", "b", "stranger"))
gaps = st.sampled_from((0, 1, 4, 4, 9))
on_time = st.lists(st.integers(-6, SKEW_MS), min_size=1, max_size=4)
whenever = st.lists(st.integers(-40, 4 * SKEW_MS), min_size=1, max_size=4)
rooms = st.sampled_from((0, 1, 1, 1_000_000))
"""For snapshots in one commit: none, one window's, all windows'."""

faults = st.sampled_from(("garbage", "tombstone", "wrong key", "no layer", "wrong width", "nan", "negative"))


class Recovery(RuleBasedStateMachine):
    """`a` and `b` have a reference from the start, `stranger` has none unless one is announced."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 100
        self.broker = Broker([Log(number) for number in range(PARTITIONS)], WINDOW_MS)
        self.changes: dict[str, list[tuple[int, Mapping[str, int]]]] = {}
        self.batch_rules = BatchRules(WINDOW_MS, LATENESS_MS, SKEW_MS, K, KEY, KNOWN, self.changes)
        self.stream_rules = StreamRules(TIME, self.contract, FramePriorities(KEY), K)
        self.workers = [Worker(number, self.broker, lambda: self.stream_rules, SNAPSHOTS) for number in range(WORKERS)]

    @initialize(owners=st.lists(workers, min_size=PARTITIONS, max_size=PARTITIONS))
    def join(self, owners: list[int]) -> None:
        self.broker.generations = dict.fromkeys(range(WORKERS), 0)
        self.broker.owners = dict(enumerate(owners))
        for worker in self.workers:
            worker.recover_all()

    # -- what publishers do -------------------------------------------------------------------------------------------

    @rule(partition=partitions, gap=gaps, model=models, delays=on_time, is_wide=st.booleans())
    def append(self, partition: int, gap: int, model: str, delays: list[int], is_wide: bool) -> None:
        self._append_frame(partition, gap, model, delays, is_wide=is_wide)

    @rule(partition=partitions, gap=gaps, model=models, delays=whenever)
    def append_late_or_from_the_future(self, partition: int, gap: int, model: str, delays: list[int]) -> None:
        self._append_frame(partition, gap, model, delays, is_wide=True)

    @rule(partition=partitions, gap=gaps, back=st.integers(1, 8))
    def repeat(self, partition: int, gap: int, back: int) -> None:
        records = self.broker.logs[partition].records
        if back <= len(records):
            again = records[-back]
            self._append(partition, gap, again.key, again.value)

    @rule(partition=partitions, gap=gaps, delays=whenever, back=st.integers(1, 8))
    def append_other_rows_under_a_used_frame_id(self, partition: int, gap: int, delays: list[int], back: int) -> None:
        records = self.broker.logs[partition].records
        if back <= len(records):
            number = records[-back].offset
            self._append_frame(partition, gap, "a", delays, is_wide=True, name=f"{partition}/{number}")

    @rule(partition=partitions, gap=gaps, model=models, delays=whenever, fault=faults)
    def append_poison(self, partition: int, gap: int, model: str, delays: list[int], fault: str) -> None:
        self._append_frame(partition, gap, model, delays, is_wide=False, fault=fault)

    @rule(partition=partitions, gap=gaps, model=models, ahead=st.integers(-20, 4 * SKEW_MS))
    def append_heartbeat(self, partition: int, gap: int, model: str, ahead: int) -> None:
        name = f"{model}{partition}"
        self.clock += gap
        beat = Heartbeat(name, self.clock + ahead, frame_id(f"beat {partition}/{self.clock}"))
        self._append(partition, 0, name.encode(), beat.encode())

    # -- what workers do ----------------------------------------------------------------------------------------------

    @rule(partition=partitions, count=st.integers(1, 6))
    def read(self, partition: int, count: int) -> None:
        self._owner(partition).read(partition, count)

    @rule(partition=partitions, ahead=st.integers(0, 60))
    def be_idle(self, partition: int, ahead: int) -> None:
        owner = self._owner(partition)
        owner.read(partition, len(self.broker.logs[partition].records))
        self.clock += ahead
        owner.be_idle(partition, self.clock)

    @rule(partition=partitions, count=st.integers(0, 6), room=rooms)
    def commit(self, partition: int, count: int, room: int) -> None:
        owner = self._owner(partition)
        owner.read(partition, count)
        owner.save(partition, room)
        self._commit(owner.number)

    @rule(partition=partitions, happened=st.booleans(), room=rooms)
    def commit_with_an_unknown_outcome(self, partition: int, happened: bool, room: int) -> None:
        owner = self._owner(partition)
        owner.save(partition, room)
        if happened:
            self._commit(owner.number)
        owner.recover_all()

    @rule(partition=partitions)
    def crash(self, partition: int) -> None:
        self._owner(partition).recover_all()

    @precondition(lambda self: any(log.table for log in self.broker.logs))
    @rule(partition=partitions, crashes=st.booleans())
    def lose_the_snapshots(self, partition: int, crashes: bool) -> None:
        """Somebody deleted the topic, and it was made anew; workers do not know."""
        self.broker.logs[partition].table.clear()
        self.broker.logs[partition].has_lost_snapshots = True
        if crashes:
            self._owner(partition).recover_all()

    # -- what the group does ------------------------------------------------------------------------------------------

    @rule(partition=partitions, to=workers, has_final_commit=st.booleans())
    def move(self, partition: int, to: int, has_final_commit: bool) -> None:
        """A rebalance that both know of."""
        former = self._owner(partition)
        if has_final_commit:
            self._commit(former.number)
        former.held.pop(partition)
        self.broker.owners[partition] = to
        self.workers[to].recover(partition)

    @rule(partition=partitions, to=workers)
    def take_away_without_a_word(self, partition: int, to: int) -> None:
        """A worker is thought dead: it goes on as a zombie, until its next commit is refused."""
        worker = self.broker.owners[partition]
        if worker == to:
            return
        taken = self.broker.owned(worker)
        self.broker.generations[worker] += 1
        for number in taken:
            self.broker.owners[number] = to
            if self.workers[to].generation == self.broker.generations[to]:
                self.workers[to].recover(number)

    @precondition(lambda self: self._zombies())
    @rule(count=st.integers(1, 6), ahead=st.integers(0, 60), commits=st.booleans())
    def let_zombies_go_on(self, count: int, ahead: int, commits: bool) -> None:
        for zombie in self._zombies():
            for number in list(zombie.held):
                zombie.read(number, count)
                zombie.be_idle(number, self.clock + ahead)
            if commits:
                self._commit(zombie.number)

    @rule(model=models, is_wide=st.booleans())
    def announce(self, model: str, is_wide: bool) -> None:
        """As `reference announce` demands: not for windows that can be open."""
        effective = self.clock + WINDOW_MS + LATENESS_MS
        for partition in range(PARTITIONS):
            self.changes.setdefault(f"{model}{partition}", []).append((effective, WIDE if is_wide else NARROW))

    @invariant()
    def every_partition_has_one_owner(self) -> None:
        for worker in self.workers:
            if worker.generation == self.broker.generations.get(worker.number):
                assert sorted(worker.held) == sorted(self.broker.owned(worker.number))

    def teardown(self) -> None:
        """Quiescence: everything is read and committed, a heartbeat of another model closes every window."""
        if not self.broker.owners:
            return
        for partition in range(PARTITIONS):
            self.clock += 1_000
            beat = Heartbeat(f"z{partition}", self.clock, frame_id(f"end {partition}"))
            self._append(partition, 0, beat.model.encode(), beat.encode())
        for number in range(WORKERS):
            self._commit(number)
        for partition, log in enumerate(self.broker.logs):
            owner = self._owner(partition)
            owner.read(partition, len(log.records))
            self._commit(owner.number)
            batch = batch_of(log.records, self.batch_rules, {partition: log.advances})
            assert_same_as_batch(log, owner.held[partition].state, batch, K)
            self._assert_windows_are_rebuilt(log)

    def contract(self, model: str, start_ms: int) -> Contract | None:
        sizes = self.batch_rules.needs(model, start_ms)
        return None if sizes is None else Contract(sizes, is_judged=True)

    def _owner(self, partition: int) -> Worker:
        """Whoever has it by the broker's word; a zombie learns that its time is over."""
        owner = self.workers[self.broker.owners[partition]]
        if owner.generation != self.broker.generations[owner.number]:
            owner.recover_all()
        return owner

    def _zombies(self) -> list[Worker]:
        return [w for w in self.workers if w.generation != self.broker.generations.get(w.number)]

    def _commit(self, number: int) -> None:
        worker = self.workers[number]
        try:
            worker.commit()
        except Fenced:
            worker.recover_all()

    def _append_frame(
        self,
        partition: int,
        gap: int,
        model: str,
        delays: list[int],
        *,
        is_wide: bool,
        fault: str = "",
        name: str | None = None,
    ) -> None:
        self.clock += gap
        offset = len(self.broker.logs[partition].records)
        values = np.full((len(delays), WIDTH + (fault == "wrong width")), float(offset), np.float32)
        values[:, 0] = np.arange(len(values))
        if fault == "nan":
            values[0, 1] = np.nan
        times = np.array([self.clock + delay for delay in delays])
        if fault == "negative":
            times[0] = -times[0]
        layers = {"other" if fault == "no layer" else "fc": values} | ({"conv": values} if is_wide else {})
        identity = frame_id(name or f"{partition}/{offset}")
        frame = Frame(f"{model}{partition}", layers, event_time_ms=times, frame_id=identity)
        key = b"other" if fault == "wrong key" else frame.model.encode()
        content = {"garbage": b"\x08garbage", "tombstone": None}.get(fault, frame.encode())
        self._append(partition, 0, key, content)

    def _append(self, partition: int, gap: int, key: bytes | None, value: bytes | None) -> None:
        self.clock += gap
        records = self.broker.logs[partition].records
        records.append(Record(TOPIC, partition, len(records), self.clock, key, value))

    def _assert_windows_are_rebuilt(self, log: Log) -> None:
        for told in log.told:
            if isinstance(told, WindowClosed):
                source = Source(
                    topic=TOPIC,
                    partition=log.number,
                    first_offset=told.first_offset,
                    close_offset=told.close_offset,
                )
                bounds = WindowBounds(start_ms=told.start_ms, end_ms=told.end_ms)
                score = window_score(start_ms=0, p_value=0.5).model_copy(
                    update={"model": told.model, "window": bounds, "source": source, "k": K}
                )
                records = log.records[told.first_offset : told.close_offset]
                again = rebuild(score, records, self.stream_rules)
                assert again is not None
                assert (again.first_offset, again.close_offset) == (told.first_offset, told.close_offset)
                assert identities(again.sample) == identities(told.sample)
                assert (again.counts.seen, again.counts.duplicate) == (told.counts.seen, told.counts.duplicate)


TestRecovery = Recovery.TestCase
TestRecovery.settings = settings(
    deadline=None,
    max_examples=9_000 if THOROUGH else 150,
    stateful_step_count=60 if THOROUGH else 40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
