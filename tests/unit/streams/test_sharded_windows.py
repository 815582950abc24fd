"""The first stage of a heavy model: which keys it takes, what closes, and how it tells that time has passed.

Windows of 10 ms, lateness 12; a plan from 20 ms on.
"""

from dataclasses import replace

import numpy as np
from tests.support.frames import frame_id

from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.identity import FramePriorities
from hydrophone.schemas.operations import ShardPlan
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import DeadLettered, Effect, SummaryClosed, TimePassed, WindowClosed
from hydrophone.streams.misplaced import Misplaced
from hydrophone.streams.partials import MOST_ROW_BYTES, encode_summary
from hydrophone.streams.processor import PartitionState, StreamRules, recover, step
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.shards import ShardPlans
from hydrophone.streams.watermark import TimeRules

TIME = TimeRules(window_ms=10, lateness_ms=12, future_skew_ms=3, expected_delay_ms=2, idle_ms=5)
PLANS = ShardPlans([ShardPlan(model="m", shards=4, effective_from_ms=20)])
RULES = StreamRules(TIME, lambda *_: Contract({"fc": 1}), FramePriorities(b"key"), k=4, shards=PLANS)


def record(state: PartitionState, times: list[int], key: str = "m") -> Record:
    name = frame_id((state.position, *times))
    frame = Frame("m", {"fc": np.zeros((len(times), 1), np.float32)}, event_time_ms=np.array(times), frame_id=name)
    return Record("t", 2, state.position, 1_000, key.encode(), frame.encode())


def heartbeat(state: PartitionState, time_ms: int, key: str = "m") -> Record:
    beat = Heartbeat("m", time_ms, frame_id(("beat", time_ms)))
    return Record("t", 2, state.position, 1_000, key.encode(), beat.encode())


def test_a_windows_start_says_whether_it_is_tested_here_or_merged() -> None:
    #   0         10        20  plan  30        W = 33 - 12 < 30, then 60 - 12
    state = recover("t", 2, 0, None)
    told: list[Effect] = []
    for times, key in (([15, 25], "m"), ([22], "m#3"), ([60], "m#0")):
        state, effects = step(state, record(state, times, key), 0, RULES)
        told += effects

    one_stage, merged, passed = told[-3:]
    assert isinstance(one_stage, WindowClosed)
    assert isinstance(merged, SummaryClosed)
    assert (one_stage.start_ms, one_stage.counts.seen) == (10, 1)
    assert (merged.summary.start_ms, merged.summary.counts.seen) == (20, 2), "the plain key is a shard too"
    assert passed == TimePassed(2, 40)


def test_a_shard_of_a_window_that_nobody_merges_is_refused_with_all_its_rows() -> None:
    state = recover("t", 2, 0, None)

    state, (letter,) = step(state, record(state, [19, 25], "m#1"), 0, RULES)

    assert isinstance(letter, DeadLettered)
    assert letter.reason == "unplanned_shard"
    assert not state.windows


def test_heartbeats_come_under_any_key_of_their_model() -> None:
    state = recover("t", 2, 0, None)
    state, _ = step(state, heartbeat(state, 100, "m#17"), 0, RULES)
    assert state.watermark_ms == 88

    for key in ("other#1", "m#", "m#x", "m#-1", "m1"):
        state, (letter,) = step(state, heartbeat(state, 100, key), 0, RULES)
        assert isinstance(letter, DeadLettered)
        assert letter.reason == "key_mismatch"


def test_time_is_told_when_it_passes_a_windows_end_and_again_after_a_restart() -> None:
    state = recover("t", 2, 0, None)
    told = []
    for time_ms in (22, 25, 31, 32, 61):
        state, effects = step(state, heartbeat(state, time_ms), 0, RULES)
        told.append([effect.watermark_ms for effect in effects if isinstance(effect, TimePassed)])
    assert told == [[10], [], [], [20], [40]]

    state = recover("t", 2, state.committable, state.checkpoint(10))
    state, effects = step(state, heartbeat(state, 62), 0, RULES)
    assert effects == [TimePassed(2, 50)]


def test_a_partition_without_any_record_lets_time_pass_by_the_clock_where_a_model_is_sharded() -> None:
    state, effects = step(recover("t", 2, 0, None), PartitionEnd(2), 1_000, RULES)
    assert effects == [TimePassed(2, 980)]
    assert state.watermark_ms == 983

    unsharded = replace(RULES, shards=ShardPlans())
    state, effects = step(recover("t", 2, 0, None), PartitionEnd(2), 1_000, unsharded)
    assert (state.watermark_ms, effects) == (None, [])


def test_nothing_is_told_of_time_where_no_model_is_sharded() -> None:
    state = recover("t", 2, 0, None)
    _, effects = step(state, heartbeat(state, 500), 0, replace(RULES, shards=ShardPlans()))
    assert effects == []


def test_each_model_with_unplanned_shards_is_told_of_once_a_partition() -> None:
    misplaced, state = Misplaced("t"), recover("t", 2, 0, None)
    refused = DeadLettered(record(state, [1], "m#1"), "unplanned_shard", "no plan")
    other = DeadLettered(record(state, [1], "m#1")._replace(partition=3), "unplanned_shard", "no plan")

    first = misplaced.unplanned(refused)

    assert first is not None
    assert (first.kind, first.model, first.partition, first.detail) == ("unplanned_shard", "m", 2, "no plan")
    assert misplaced.unplanned(refused) is None
    assert misplaced.unplanned(other) is not None
    assert misplaced.unplanned(replace(refused, reason="key_mismatch")) is None


def test_a_row_that_fits_into_no_summary_is_refused_when_it_comes() -> None:
    #   on the wire bfloat16 or compressed, twice as large once read: else the stage would die of it, again and again
    largest = MOST_ROW_BYTES // 4
    state = recover("t", 2, 0, None)
    wide = Frame("m", {"fc": np.zeros((1, largest + 1), np.float32)}, event_time_ms=np.array([25]))

    state, (letter,) = step(state, Record("t", 2, 0, 1_000, b"m#1", wide.encode()), 0, RULES)

    assert isinstance(letter, DeadLettered)
    assert letter.reason == "row_too_large"
    rules = replace(RULES, contract=lambda *_: Contract({"fc": largest}))
    fits = Frame("m", {"fc": np.zeros((1, largest), np.float32)}, event_time_ms=np.array([25]))
    state, _ = step(state, Record("t", 2, 1, 1_000, b"m#1", fits.encode()), 0, rules)
    _, effects = step(state, heartbeat(state, 1_000), 0, rules)
    closed = next(effect for effect in effects if isinstance(effect, SummaryClosed))
    assert len(encode_summary(closed.summary)) == 1
