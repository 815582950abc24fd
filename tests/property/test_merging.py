"""A heavy model spread over partitions gets the windows it would get unspread, whatever crashes and interleaves.

Three partitions and the two stages over them, each stage a process that may die after any record, and a broker that
takes a batch whole or not at all. What is promised:

- every window is closed exactly once, by the stage that the first plan says, with the counts and rows of a batch;
- the same records under one key, in one partition, give the same windows;
- how many shards there are, and when that changes, changes nothing;
- merging is associative, commutative and idempotent in the rows.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.batch import Batch, BatchRules, batch_of
from tests.support.events import window_score
from tests.support.frames import frame_id

from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.identity import FramePriorities
from hydrophone.schemas.operations import ShardPlan
from hydrophone.schemas.score import Source
from hydrophone.streams.checkpoint import Checkpoint, MergeCheckpoint
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import DeadLettered, Effect, RowsLate, SummaryClosed, TimePassed, WindowClosed
from hydrophone.streams.merging import MergeRules, MergeState, merge, merge_step, recover_merge
from hydrophone.streams.partials import encode_marker, encode_summary
from hydrophone.streams.processor import PartitionState, StreamRules, recover, step
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.replay import rebuild
from hydrophone.streams.shards import ShardPlans
from hydrophone.streams.watermark import TimeRules

KEY: Final = b"a secret of the test"
WINDOW_MS: Final = 10
LATENESS_MS: Final = 12
SKEW_MS: Final = 3
PACE_MS: Final = 4
START_MS: Final = 100
PARTITIONS: Final = 3
K: Final = 5
WIDTH: Final = 2
CHUNK_BYTES: Final = 2_060
"""Small enough that a summary of five rows comes in more than one record."""

SIZES: Final = {"heavy": {"fc": WIDTH}, "light": {"fc": WIDTH}}
CONTRACTS: Final = {model: Contract(sizes) for model, sizes in SIZES.items()}
TIME_RULES: Final = TimeRules(
    window_ms=WINDOW_MS, lateness_ms=LATENESS_MS, future_skew_ms=SKEW_MS, expected_delay_ms=0, idle_ms=5
)
MERGE_RULES: Final = MergeRules(WINDOW_MS, KEY, K)


@dataclass(frozen=True)
class Sent:
    """One record to be: event times relative to its own timestamp, and whether its publisher knows the plans, none, or
    does not wait for them."""

    model: str
    delays: tuple[int, ...]
    publisher: str = "knowing"
    copies: int = 0
    """Sent as the frame that went out so many records ago, if there was one."""


def records(*, earliest: int) -> st.SearchStrategy[Sent]:
    return st.builds(
        Sent,
        st.sampled_from(("heavy", "heavy", "heavy", "light")),
        st.lists(st.integers(earliest, SKEW_MS), min_size=1, max_size=4).map(tuple),
        st.sampled_from(("knowing", "knowing", "knowing", "knowing", "deaf", "hasty")),
        st.sampled_from((0, 0, 0, 0, 1, 2, 5)),
    )


plans_made = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=3).map(
    lambda made: ShardPlans(
        ShardPlan(model="heavy", shards=shards, effective_from_ms=START_MS + windows * WINDOW_MS)
        for windows, shards in made
    )
)
scripts = st.lists(
    st.tuples(
        st.sampled_from((*range(PARTITIONS), PARTITIONS, PARTITIONS, PARTITIONS)),
        st.integers(1, 9),
        st.sampled_from(("", "commit", "commit", "commit and crash", "crash")),
    ),
    max_size=50,
)
"""Who goes on, the last being the second stage, by how many records, and what befalls it after that."""


def rules_of(plans: ShardPlans) -> StreamRules:
    return StreamRules(TIME_RULES, lambda model, _: CONTRACTS.get(model), FramePriorities(KEY), K, shards=plans)


def batch_rules(plans: ShardPlans) -> BatchRules:
    first = min((plan.effective_from_ms for plan in plans), default=None)
    return BatchRules(
        WINDOW_MS, LATENESS_MS, SKEW_MS, K, KEY, SIZES, sharded_from={} if first is None else {"heavy": first}
    )


def home(key: bytes, partitions: int) -> int:
    return zlib.crc32(key) % partitions


def logs_of(sent: Sequence[Sent], plans: ShardPlans, partitions: int = PARTITIONS) -> list[list[Record]]:
    """The records by partition, and at the end of each a heartbeat that closes everything."""
    logs: list[list[Record]] = [[] for _ in range(partitions)]
    frames: list[tuple[bytes, bytes]] = []

    def append(number: int, timestamp_ms: int, key: bytes, value: bytes) -> None:
        logs[number].append(Record("t", number, len(logs[number]), timestamp_ms, key, value))

    for number, plan in enumerate(sent):
        timestamp_ms = START_MS + number * PACE_MS
        if 0 < plan.copies <= number:
            frames.append(frames[number - plan.copies])
        else:
            frames.append(_frame(plan, number, timestamp_ms, plans))
        append(home(frames[-1][0], partitions), timestamp_ms, *frames[-1])
    end_ms = START_MS + len(sent) * PACE_MS + 1000
    for number in range(partitions):
        append(number, end_ms, b"z", Heartbeat("z", end_ms, frame_id("end")).encode())
    return logs


def _frame(plan: Sent, number: int, timestamp_ms: int, plans: ShardPlans) -> tuple[bytes, bytes]:
    values = np.full((len(plan.delays), WIDTH), float(number), np.float32)
    values[:, 0] = np.arange(len(values))
    times = np.array([timestamp_ms + delay for delay in plan.delays])
    frame = Frame(plan.model, {"fc": values}, event_time_ms=times, frame_id=frame_id(number))
    key = plans.key(plan.model, frame.frame_id, 2**40 if plan.publisher == "hasty" else int(times.min()))
    return (plan.model if plan.publisher == "deaf" else key).encode(), frame.encode()


@dataclass
class Broker:
    """What is committed: the second topic, and what both stages told."""

    partials: list[Record] = field(default_factory=list)
    told: list[Effect] = field(default_factory=list)

    def append(self, effect: Effect) -> None:
        if isinstance(effect, SummaryClosed):
            wires = encode_summary(effect.summary, CHUNK_BYTES)
        elif isinstance(effect, TimePassed):
            wires = [encode_marker(effect, PARTITIONS)]
        else:
            self.told.append(effect)
            return
        for key, value, headers in wires:
            self.partials.append(Record("p", 0, len(self.partials), 0, key, value, tuple(headers)))


@dataclass
class FirstStage:
    """The processor of one partition of activations."""

    number: int
    log: list[Record]
    broker: Broker
    rules: StreamRules
    state: PartitionState = field(init=False)
    waiting: list[Effect] = field(default_factory=list)
    committed: tuple[int, str | None] = (0, None)

    def __post_init__(self) -> None:
        self.crash()

    def go_on(self) -> bool:
        if self.state.position >= len(self.log):
            return False
        self.state, effects = step(self.state, self.log[self.state.position], 0, self.rules)
        self.waiting += effects
        return True

    def idle(self, now_ms: int) -> None:
        if self.state.position >= self.state.replay_until:
            self.state, effects = step(self.state, PartitionEnd(self.number), now_ms, self.rules)
            self.waiting += effects

    def commit(self) -> None:
        self.committed = (self.state.committable, self.state.checkpoint(WINDOW_MS).encode())
        for effect in self.waiting:
            self.broker.append(effect)
        self.waiting = []

    def crash(self) -> None:
        offset, text = self.committed
        self.waiting = []
        self.state = recover("t", self.number, offset, Checkpoint.decode(text, window_ms=WINDOW_MS))


@dataclass
class SecondStage:
    """The processor of the one partition of partials."""

    broker: Broker
    state: MergeState = field(init=False)
    waiting: list[Effect] = field(default_factory=list)
    committed: tuple[int, str | None] = (0, None)

    def __post_init__(self) -> None:
        self.crash()

    def go_on(self) -> bool:
        if self.state.position >= len(self.broker.partials):
            return False
        self.state, effects = merge_step(self.state, self.broker.partials[self.state.position], MERGE_RULES)
        self.waiting += effects
        return True

    def commit(self) -> None:
        self.committed = (self.state.committable, self.state.checkpoint(WINDOW_MS).encode())
        self.broker.told += self.waiting
        self.waiting = []

    def crash(self) -> None:
        offset, text = self.committed
        self.waiting = []
        self.state = recover_merge("p", 0, offset, MergeCheckpoint.decode(text, window_ms=WINDOW_MS))


def run(
    logs: list[list[Record]], plans: ShardPlans, script: Sequence[tuple[int, int, str]], *, idle: bool = False
) -> list[Effect]:
    """What both stages told in the end."""
    broker, rules = Broker(), rules_of(plans)
    first = [FirstStage(number, log, broker, rules) for number, log in enumerate(logs)]
    second = SecondStage(broker)
    actors: list[FirstStage | SecondStage] = [*first, second]
    for who, steps, what in script:
        actor = actors[min(who, len(first))]
        for _ in range(steps):
            actor.go_on()
        if "commit" in what:
            actor.commit()
        if "crash" in what:
            actor.crash()
        elif idle and isinstance(actor, FirstStage) and actor.state.position:
            actor.idle(actor.log[actor.state.position - 1].timestamp_ms + 9)
    for actor in actors:
        while actor.go_on():
            pass
        actor.commit()
    return broker.told


def windows_of(told: Sequence[Effect]) -> dict[tuple[str, int], WindowClosed]:
    closed = [effect for effect in told if isinstance(effect, WindowClosed)]
    found = {(window.model, window.start_ms): window for window in closed}
    assert len(found) == len(closed), "no window twice"
    return found


def rows_of(window: WindowClosed) -> list[tuple[str, int, float]]:
    if window.sample is None:
        return []
    values = window.sample.layers["fc"]
    return [(o.frame_id, o.row, float(values[i, 1])) for i, o in enumerate(window.sample.row_origins())]


def assert_rebuilt(window: WindowClosed, logs: list[list[Record]], rules: StreamRules) -> None:
    """As `hydrophone replay --topic-scan` does: from the offsets that the score names, of each partition."""
    first = window.parts[0]
    source = Source(
        topic="t",
        partition=first.partition,
        first_offset=first.first_offset,
        close_offset=first.close_offset,
        parts=window.parts,
    )
    bounds = WindowBounds(start_ms=window.start_ms, end_ms=window.end_ms)
    score = window_score(start_ms=0, p_value=0.5).model_copy(
        update={"model": window.model, "window": bounds, "source": source, "k": K}
    )
    scanned = [logs[part.partition][part.first_offset : part.close_offset] for part in window.parts]
    again = rebuild(score, chain.from_iterable(scanned), rules, KEY)
    assert again is not None
    assert rows_of(again) == rows_of(window)
    assert again.parts == window.parts
    assert (again.counts.seen, again.counts.duplicate) == (window.counts.seen, window.counts.duplicate)


def assert_same_as_batch(
    told: Sequence[Effect], batch: Batch, plans: ShardPlans, logs: list[list[Record]] | None = None
) -> None:
    windows = windows_of(told)
    assert windows.keys() == batch.windows.keys()
    for (model, start_ms), window in windows.items():
        expected = batch.windows[model, start_ms]
        assert bool(window.parts) == plans.is_merged(model, start_ms), "the stage is the plan's to say"
        assert (window.counts.seen, window.counts.duplicate) == (expected.seen, expected.duplicate)
        assert rows_of(window) == [
            (*identity, float(expected.frames[identity[0]].layers["fc"][identity[1], 1]))
            for identity in expected.sample(K)
        ]
        assert window.counts.tested == len(expected.sample(K))
        if window.parts and logs:
            assert_rebuilt(window, logs, rules_of(plans))
        if window.parts:
            assert {part.partition for part in window.parts} >= {p for *_, p, _ in expected.rows}
    late = [(e.record.partition, e.record.offset, e.rows) for e in told if isinstance(e, RowsLate)]
    assert sorted(late) == sorted((*place, rows) for place, rows in batch.late.items())
    dead = [(e.record.partition, e.record.offset, e.reason) for e in told if isinstance(e, DeadLettered)]
    assert sorted(dead) == sorted((*place, reason) for place, reason in batch.dead.items())


@settings(deadline=None, max_examples=150)
@given(st.lists(records(earliest=-40), max_size=40), plans_made, scripts)
def test_any_crashes_and_plans_leave_what_a_batch_finds(
    sent: list[Sent], plans: ShardPlans, script: list[tuple[int, int, str]]
) -> None:
    logs = logs_of(sent, plans)
    batch = batch_of([record for log in logs for record in log], batch_rules(plans))

    told = run(logs, plans, script)

    assert_same_as_batch(told, batch, plans, logs)


@settings(deadline=None, max_examples=150)
@given(st.lists(records(earliest=-6), max_size=40), plans_made, scripts)
def test_shards_change_no_window(sent: list[Sent], plans: ShardPlans, script: list[tuple[int, int, str]]) -> None:
    # Nothing is late here: one partition's time runs ahead of three's, and could make late what is not.
    on_time = [replace(one, copies=0, publisher=one.publisher.replace("hasty", "knowing")) for one in sent]
    unsharded = windows_of(run(logs_of(on_time, ShardPlans(), 1), ShardPlans(), []))

    sharded = windows_of(run(logs_of(on_time, plans), plans, script))

    assert sharded.keys() == unsharded.keys()
    for place, window in sharded.items():
        assert window.counts.seen == unsharded[place].counts.seen
        assert rows_of(window) == rows_of(unsharded[place])


@settings(deadline=None, max_examples=150)
@given(st.lists(records(earliest=-40), max_size=30), plans_made, scripts)
def test_idle_partitions_never_lose_or_double_a_row(
    sent: list[Sent], plans: ShardPlans, script: list[tuple[int, int, str]]
) -> None:
    # Which rows an idle partition makes late depends on when it was idle; that each has one fate does not.
    logs = logs_of([replace(one, copies=0) for one in sent], plans)

    told = run(logs, plans, script, idle=True)

    windows = windows_of(told)
    late = [e for e in told if isinstance(e, RowsLate)]
    dead = {(e.record.partition, e.record.offset) for e in told if isinstance(e, DeadLettered)}
    assert all(e.reason == "unplanned_shard" for e in told if isinstance(e, DeadLettered))
    rows = sum(
        len(Frame.decode(r.value or b"")) for log in logs for r in log[:-1] if (r.partition, r.offset) not in dead
    )
    assert rows == sum(w.counts.seen for w in windows.values()) + sum(len(e.rows) for e in late)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True), min_size=1, max_size=5), st.data())
def test_merging_is_associative_commutative_and_idempotent_in_its_rows(
    parts: list[list[int]], data: st.DataObject
) -> None:
    #   (a + b) + c = a + (c + b), and rows that two of them hold stand in the result once
    rules = rules_of(ShardPlans())
    summaries = []
    for number, names in enumerate(parts):
        state = recover("t", number, 0, None)
        for offset, name in enumerate(names):
            frame = Frame(
                "light",
                {"fc": np.full((2, WIDTH), name, np.float32)},
                event_time_ms=np.array(3),
                frame_id=frame_id(name),
            )
            state, _ = step(state, Record("t", number, offset, 5, b"light", frame.encode()), 0, rules)
        end = Heartbeat("light", 100, frame_id("end")).encode()
        _, (closed,) = step(state, Record("t", number, len(names), 100, b"light", end), 0, rules)
        assert isinstance(closed, WindowClosed)
        summaries.append(closed)
    whole = merge(summaries, MERGE_RULES)

    shuffled = data.draw(st.permutations(summaries))
    cut = data.draw(st.integers(0, len(shuffled) - 1))
    grouped = merge([merge(shuffled[: cut + 1], MERGE_RULES), *shuffled[cut + 1 :]], MERGE_RULES)

    priorities = FramePriorities(KEY)
    everything = {
        (int(priorities(frame_id(n), 2)[row]), frame_id(n), row) for names in parts for n in names for row in (0, 1)
    }
    assert [(i, r) for i, r, _ in rows_of(whole)] == [(i, r) for _, i, r in sorted(everything)[:K]]
    assert rows_of(grouped) == rows_of(whole)
    assert (grouped.counts, grouped.parts) == (whole.counts, whole.parts)
    assert Counter(part.partition for part in whole.parts) == Counter(range(len(parts)))
