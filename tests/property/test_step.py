"""Whatever order, duplication and crashes do, the windows are those of a batch over the same log, each exactly once.

A small log stands in for the broker: it keeps one committed offset with its text and the outputs of committed batches,
and takes all three or none. The driver may commit, crash and go on from there after any record. What is promised:

- every instant lies in exactly one window, and the watermark never falls;
- closed windows, late rows and dead letters are told exactly once, and are those of `tests/support/batch.py`;
- every record and every row is accounted for, at any time;
- the sample is the k rows of smallest priority, whatever order and repetition offered them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Final

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.batch import Batch, BatchRules, batch_of
from tests.support.frames import frame_id

from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.identity import FramePriorities
from hydrophone.schemas.origins import Origin
from hydrophone.streams.checkpoint import Checkpoint
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import DeadLettered, Effect, RowsLate, WindowClosed
from hydrophone.streams.processor import Accounts, PartitionState, StreamRules, recover, step
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.sampling import BottomK
from hydrophone.streams.watermark import TimeRules
from hydrophone.streams.windows import window_start

KEY: Final = b"a secret of the test"
WINDOW_MS: Final = 10
LATENESS_MS: Final = 12
SKEW_MS: Final = 3
PACE_MS: Final = 4
"""Records are appended this far apart."""

K: Final = 5
WIDTH: Final = 2
MODELS: Final = ("a", "b", "stranger")
SIZES: Final = {"a": {"fc": WIDTH}, "b": {"fc": WIDTH}}
CONTRACTS: Final = {model: Contract(sizes) for model, sizes in SIZES.items()}
"""Model `stranger` has no reference."""

TIME_RULES: Final = TimeRules(
    window_ms=WINDOW_MS, lateness_ms=LATENESS_MS, future_skew_ms=SKEW_MS, expected_delay_ms=0, idle_ms=5
)
RULES: Final = StreamRules(TIME_RULES, lambda model, _: CONTRACTS.get(model), FramePriorities(KEY), K)
BATCH_RULES: Final = BatchRules(WINDOW_MS, LATENESS_MS, SKEW_MS, K, KEY, SIZES)


@dataclass(frozen=True)
class Sent:
    """One record to be: event times relative to its own timestamp, and what is wrong with it, if anything."""

    model: str
    delays: tuple[int, ...]
    fault: str = ""
    copies: int = 0
    """Sent as the frame that went out so many records ago, if there was one."""


FAULTS: Final = ("garbage", "tombstone", "wrong key", "no layer", "wrong width", "nan", "negative", "heartbeat")

on_time = st.builds(
    Sent,
    st.sampled_from(MODELS),
    st.lists(st.integers(-6, SKEW_MS), min_size=1, max_size=4).map(tuple),
    st.just(""),
    st.sampled_from((0, 0, 0, 1, 2, 5)),
)
anything = st.builds(
    Sent,
    st.sampled_from(MODELS),
    st.lists(st.integers(-40, 3 * SKEW_MS), min_size=1, max_size=4).map(tuple),
    st.sampled_from(("", "", "", "", *FAULTS)),
    st.sampled_from((0, 0, 0, 0, 1, 2, 5, 9)),
)
scripts = st.lists(st.sampled_from(("", "", "commit", "crash", "idle")), max_size=60)
"""What the driver does after its 1st, 2nd, ... step; nothing once the script is over."""


def log_of(sent: Sequence[Sent]) -> list[Record]:
    """The records, and at their end a heartbeat of another model that closes every window."""
    log: list[Record] = []
    frames: list[tuple[bytes, bytes | None]] = []
    for number, plan in enumerate(sent):
        timestamp_ms = 100 + number * PACE_MS
        if 0 < plan.copies <= number:
            frames.append(frames[number - plan.copies])
        else:
            frames.append(_record(plan, number, timestamp_ms))
        log.append(Record("t", 0, number, timestamp_ms, *frames[-1]))
    end = 100 + len(sent) * PACE_MS + 1000
    log.append(Record("t", 0, len(sent), end, b"z", Heartbeat("z", end, frame_id("end")).encode()))
    return log


def _record(plan: Sent, number: int, timestamp_ms: int) -> tuple[bytes, bytes | None]:
    key = plan.model.encode()
    if plan.fault == "tombstone":
        return key, None
    if plan.fault == "garbage":
        return key, b"\x08garbage"
    if plan.fault == "heartbeat":
        return key, Heartbeat(plan.model, timestamp_ms + plan.delays[0], frame_id(number)).encode()
    width = WIDTH + (plan.fault == "wrong width")
    values = np.full((len(plan.delays), width), float(number), np.float32)
    values[:, 0] = np.arange(len(values))
    times = np.array([timestamp_ms + delay for delay in plan.delays])
    if plan.fault == "nan":
        values[0, 1] = np.nan
    if plan.fault == "negative":
        times[0] = -times[0]
    layers = {"other" if plan.fault == "no layer" else "fc": values}
    frame = Frame(plan.model, layers, event_time_ms=times, frame_id=frame_id(number))
    return b"other" if plan.fault == "wrong key" else key, frame.encode()


@dataclass
class Driver:
    """A processor that may die after any record, and a broker that takes a batch whole or not at all."""

    log: Sequence[Record]
    state: PartitionState = field(default_factory=lambda: recover("t", 0, 0, None))
    waiting: list[Effect] = field(default_factory=list)
    told: list[Effect] = field(default_factory=list)
    offset: int = 0
    text: str | None = None
    accounts: Accounts = field(default_factory=Accounts)
    reported: Accounts = field(default_factory=Accounts)
    rules: StreamRules = RULES

    def run(self, script: Sequence[str]) -> None:
        place = steps = 0
        while place < len(self.log):
            self._take(self.log[place])
            place += 1
            action = script[steps] if steps < len(script) else ""
            steps += 1
            if action == "commit":
                self._commit()
            elif action == "crash":
                place = self._crash()
            elif action == "idle" and place >= self.state.replay_until:
                self._take(PartitionEnd(0), now_ms=self.log[place - 1].timestamp_ms + 15)
        self._commit()

    def _take(self, event: Record | PartitionEnd, now_ms: int = 0) -> None:
        before = self.state.watermark_ms
        self.state, effects = step(self.state, event, now_ms, self.rules)
        self.waiting += effects
        after = self.state.watermark_ms
        assert before is None or (after is not None and after >= before), "the watermark must not fall"
        assert_balanced(self.state.accounts)

    def _commit(self) -> None:
        self.offset = self.state.committable
        self.text = self.state.checkpoint(WINDOW_MS).encode()
        self.told += self.waiting
        self.waiting = []
        now, before, total = asdict(self.state.accounts), asdict(self.reported), asdict(self.accounts)
        self.accounts = Accounts(**{name: total[name] + now[name] - before[name] for name in total})
        self.reported = Accounts(**now)

    def _crash(self) -> int:
        self.waiting, self.reported = [], Accounts()
        self.state = recover("t", 0, self.offset, Checkpoint.decode(self.text, window_ms=WINDOW_MS))
        return self.offset


def assert_balanced(accounts: Accounts) -> None:
    assert accounts.records == (
        accounts.accepted + accounts.duplicate + accounts.dead_lettered + accounts.heartbeats
    ), accounts
    assert accounts.rows == accounts.windowed + accounts.late + accounts.rejected + accounts.quarantined, accounts


def assert_same_as_batch(told: Sequence[Effect], batch: Batch) -> None:
    windows = [effect for effect in told if isinstance(effect, WindowClosed)]
    assert sorted((w.model, w.start_ms) for w in windows) == sorted(batch.windows), "each window exactly once"
    for window in windows:
        expected = batch.windows[window.model, window.start_ms]
        counts = window.counts
        assert (counts.seen, counts.duplicate) == (expected.seen, expected.duplicate)
        assert counts.rejected >= expected.rejected, "and rows of impossible time, which belong to no window"
        assert window.first_offset == expected.first_offset
        assert _rows(window.sample) == [
            (*identity, float(identity[1]), expected.frames[identity[0]].layers["fc"][identity[1], 1])
            for identity in expected.sample(K)
        ]
        assert counts.tested == len(expected.sample(K))
    late = [effect for effect in told if isinstance(effect, RowsLate)]
    assert [(0, effect.record.offset) for effect in late] == list(batch.late), "late records exactly once, in order"
    assert [effect.rows for effect in late] == list(batch.late.values())
    dead = [(effect.record.offset, effect.reason) for effect in told if isinstance(effect, DeadLettered)]
    assert dead == [(offset, reason) for (_, offset), reason in batch.dead.items()], "dead letters exactly once"


def _rows(sample: Frame | None) -> list[tuple[str, int, float, float]]:
    if sample is None:
        return []
    values = sample.layers["fc"]
    return [
        (origin.frame_id, origin.row, float(values[i, 0]), float(values[i, 1]))
        for i, origin in enumerate(sample.row_origins())
    ]


def without_idle(script: Sequence[str]) -> list[str]:
    return ["" if action == "idle" else action for action in script]


@given(st.integers(0, 2**62), st.integers(1, 2**40))
def test_every_instant_lies_in_exactly_one_window(instant_ms: int, window_ms: int) -> None:
    #   [ start ......... instant ......... end )[ next
    start = window_start(instant_ms, window_ms)
    assert start <= instant_ms < start + window_ms
    assert start % window_ms == 0
    assert window_start(start, window_ms) == start
    assert window_start(start + window_ms, window_ms) == start + window_ms
    assert start == 0 or window_start(start - 1, window_ms) == start - window_ms


@settings(deadline=None, max_examples=1_200)
@given(st.lists(anything, max_size=30), scripts)
@example([Sent("a", (0,)), Sent("a", (3,)), Sent("a", (3,))], ["commit", "crash"])
def test_any_crashes_leave_what_a_batch_over_the_log_finds(sent: list[Sent], script: list[str]) -> None:
    log = log_of(sent)
    driver, batch = Driver(log), batch_of(log, BATCH_RULES)

    driver.run(without_idle(script))

    assert_same_as_batch(driver.told, batch)
    accounts = driver.accounts
    assert_balanced(accounts)
    assert accounts.records == len(log)
    assert (accounts.dead_lettered, accounts.duplicate) == (len(batch.dead), batch.duplicates)
    assert accounts.heartbeats == batch.heartbeats
    assert accounts.late == sum(map(len, batch.late.values()))
    assert (accounts.quarantined, accounts.rejected) == (batch.quarantined, batch.rejected)


@settings(deadline=None, max_examples=500)
@given(st.lists(anything, max_size=30), scripts)
def test_scores_and_what_is_still_pending_tell_of_every_row(sent: list[Sent], script: list[str]) -> None:
    driver = Driver(log_of(sent))

    driver.run(script)

    counts = [effect.counts for effect in driver.told if isinstance(effect, WindowClosed)]
    pending = driver.state.pending.values()
    accounts = driver.accounts
    assert accounts.windowed == sum(count.seen for count in counts)
    assert accounts.late == sum(count.late_since_previous for count in counts) + sum(late for late, *_ in pending)
    assert accounts.quarantined == sum(count.quarantined for count in counts) + sum(ahead for _, ahead, *_ in pending)
    assert accounts.rejected == sum(count.rejected for count in counts) + sum(rejected for *_, rejected in pending)


@settings(deadline=None, max_examples=500)
@given(st.lists(anything, max_size=30), scripts)
def test_idle_advances_and_crashes_never_lose_or_double_a_row(sent: list[Sent], script: list[str]) -> None:
    # Which rows an idle partition makes late depends on when it was idle; that each has one fate does not.
    log = log_of(sent)
    driver, batch = Driver(log), batch_of(log, BATCH_RULES)

    driver.run(script)

    closed = [effect for effect in driver.told if isinstance(effect, WindowClosed)]
    assert len({(w.model, w.start_ms) for w in closed}) == len(closed), "no window twice"
    dead = [(effect.record.offset, effect.reason) for effect in driver.told if isinstance(effect, DeadLettered)]
    assert dead == [(offset, reason) for (_, offset), reason in batch.dead.items()]
    late = [(e.record.offset, row) for e in driver.told if isinstance(e, RowsLate) for row in e.rows]
    assert len(set(late)) == len(late), "no late row twice"
    assert driver.accounts.records == len(log)
    assert_balanced(driver.accounts)
    assert driver.accounts.windowed == sum(w.counts.seen for w in closed)
    assert driver.accounts.late == len(late)


@settings(deadline=None, max_examples=500)
@given(st.lists(on_time, max_size=24), st.randoms(use_true_random=False), scripts)
def test_order_within_lateness_and_repetition_change_no_window(
    sent: list[Sent], random: Random, script: list[str]
) -> None:
    # W trails the latest row by 12 ms; neighbours swap places at 4 ms apart, so nothing can be late.
    #   offset     0   1   2   3        swapped   1   0   3   2
    log = log_of([Sent(plan.model, plan.delays) for plan in sent])
    swapped = list(log)
    for first in range(0, len(log) - 2, 2):
        if random.random() < 0.5:
            swapped[first], swapped[first + 1] = log[first + 1], log[first]
    repeated = [record for record in swapped for _ in range(random.choice((1, 1, 2)))]
    shuffled = [
        record._replace(offset=offset, timestamp_ms=log[-1].timestamp_ms) for offset, record in enumerate(repeated)
    ]
    driver, batch = Driver(shuffled), batch_of(log, BATCH_RULES)

    driver.run(without_idle(script))

    windows = {(w.model, w.start_ms): w for w in driver.told if isinstance(w, WindowClosed)}
    assert windows.keys() == batch.windows.keys()
    for place, window in windows.items():
        assert window.counts.seen == batch.windows[place].seen
        assert [(o.frame_id, o.row) for o in _origins(window)] == batch.windows[place].sample(K)


def _origins(window: WindowClosed) -> list[Origin]:
    return window.sample.row_origins() if window.sample is not None else []


@settings(deadline=None, max_examples=500)
@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(1, 9), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_bottom_k_is_the_head_of_all_rows_sorted(
    offers: list[tuple[int, int, bool]], k: int, bits: int, random: Random
) -> None:
    # With few bits priorities tie often: identity settles it.
    frames = {
        name: Frame(
            "a", {"fc": np.full((rows, 1), name, np.float32)}, event_time_ms=np.array(0), frame_id=frame_id(name)
        )
        for name, rows, _ in offers
    }
    sketch, everything = BottomK(k), []
    for name, frame in frames.items():
        draw = np.random.default_rng(name)
        priorities = draw.integers(0, 2 ** (bits or 60), len(frame)).astype(np.uint64)
        rows = np.flatnonzero(draw.random(len(frame)) < 0.8) if name % 2 else None
        chosen = priorities if rows is None else priorities[rows]
        offered = np.arange(len(frame)) if rows is None else rows
        everything += [(int(p), frame.frame_id, int(r)) for p, r in zip(chosen, offered, strict=True)]
        if chosen.size:
            sketch.offer(frame, rows, chosen, partition=0, offset=name, record_bytes=len(frame.encode()))

    sample = sketch.sample()

    found = [] if sample is None else [(o.frame_id, o.row) for o in sample.row_origins()]
    assert found == [(name, row) for _, name, row in sorted(everything)[:k]]
    if sample is not None:
        assert sample.layers["fc"][:, 0].tolist() == [float(o.offset) for o in sample.row_origins()]
