"""Each record and each row has one fate, and the accounts hold at any time.

Windows of 10 ms, lateness 12: the watermark trails the latest row by 12 ms, so a row at 34 closes `[10, 20)`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from tests.support.frames import frame_id

from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.identity import FramePriorities
from hydrophone.schemas.origins import Origin
from hydrophone.streams.checkpoint import Checkpoint, Pending
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import DeadLettered, Effect, RowsArrived, RowsLate, WindowClosed
from hydrophone.streams.processor import PartitionState, StreamRules, recover, step
from hydrophone.streams.record import UNREADABLE_HEADERS, PartitionEnd, Record
from hydrophone.streams.watermark import TimeRules

TIME = TimeRules(window_ms=10, lateness_ms=12, future_skew_ms=3, expected_delay_ms=2, idle_ms=5)
CONTRACTS = {
    "m": Contract({"fc": 2}),
    "judged": Contract({"fc": 2}, is_judged=True),
    "classes": Contract({"fc": 2}, needs_classes=True),
}
RULES = StreamRules(TIME, lambda model, _: CONTRACTS.get(model), FramePriorities(b"key"), k=4)
APPENDED_MS = 1_000
"""The broker's time of every record: nothing below 1,004 is in the future."""


class Stream:
    """A partition under test: records go in by their frames, effects come out."""

    def __init__(self, rules: StreamRules = RULES) -> None:
        self.state, self.rules = recover("t", 0, 0, None), rules

    def send(self, frame: Frame | Heartbeat | bytes | None, key: bytes | None = b"", **parts: Any) -> list[Effect]:
        value = frame if isinstance(frame, bytes | None) else frame.encode()
        if key == b"":
            key = b"m" if isinstance(frame, bytes | None) else frame.model.encode()
        record = Record("t", 0, self.state.position, APPENDED_MS, key, value, **parts)
        self.state, effects = step(self.state, record, 0, self.rules)
        return effects

    def idle(self, now_ms: int) -> list[Effect]:
        self.state, effects = step(self.state, PartitionEnd(0), now_ms, self.rules)
        return effects

    def counts(self) -> dict[str, int]:
        accounts = asdict(self.state.accounts)
        assert accounts["records"] == sum(accounts[n] for n in ("accepted", "duplicate", "dead_lettered", "heartbeats"))
        assert accounts["rows"] == sum(accounts[n] for n in ("windowed", "late", "rejected", "quarantined"))
        return {name: count for name, count in accounts.items() if count}


def rows(times: Sequence[int], name: object = "frame", *, model: str = "m", width: int = 2, **parts: Any) -> Frame:
    layers = parts.pop("layers", None) or {"fc": np.zeros((len(times), width), np.float32)}
    return Frame(model, layers, event_time_ms=np.array(times), frame_id=frame_id(name), **parts)


def windows(effects: Sequence[Effect]) -> list[WindowClosed]:
    return [effect for effect in effects if isinstance(effect, WindowClosed)]


def test_window_closes_once_the_watermark_has_passed_its_end() -> None:
    #   0        10        20        30
    #   [        )[ 11  15 )[        )[  31 | 32 →  W = 20
    stream = Stream()
    assert stream.send(rows([11, 15], 1)) == []
    assert stream.send(rows([31], 2)) == []
    (closed,) = windows(stream.send(rows([32], 3)))

    assert (closed.start_ms, closed.end_ms, closed.counts.seen, closed.counts.tested) == (10, 20, 2, 2)
    assert (closed.first_offset, closed.close_offset) == (0, 3)
    assert closed.sample is not None
    assert {(o.frame_id, o.row, o.offset) for o in closed.sample.row_origins()} == {
        (frame_id(1), 0, 0),
        (frame_id(1), 1, 0),
    }
    assert stream.counts() == {"records": 3, "accepted": 3, "rows": 4, "windowed": 4}


def test_frame_that_spans_windows_puts_each_row_where_it_belongs() -> None:
    #   [ 8 9 )[ 10 19 )[ 20 )
    stream = Stream()
    stream.send(rows([8, 10, 9, 19, 20]))

    closed = windows(stream.send(Heartbeat("m", 500)))

    assert [(w.start_ms, w.counts.seen) for w in closed] == [(0, 2), (10, 2), (20, 1)]
    assert all(w.first_offset == 0 for w in closed)


def test_late_rows_are_told_by_their_indices_and_the_others_are_kept() -> None:
    #   W = 100 − 12 = 88:  [ 70 )[ 80 | 88 )     5 and 79 are late, 81 is not
    stream = Stream()
    stream.send(rows([100], 1))
    (late,) = stream.send(rows([81, 5, 79], 2))

    assert isinstance(late, RowsLate)
    assert (late.rows, late.record.offset) == ((1, 2), 1)
    assert stream.counts() == {"records": 2, "accepted": 2, "rows": 4, "windowed": 2, "late": 2}
    closed = windows(stream.send(Heartbeat("m", 900)))
    assert [(w.start_ms, w.counts.seen, w.counts.late_since_previous) for w in closed] == [(80, 1, 2), (100, 1, 0)]


def test_row_in_the_far_future_is_quarantined_and_does_not_move_the_watermark() -> None:
    stream = Stream()
    stream.send(rows([50, APPENDED_MS + 4, 2**62], 1))

    assert stream.state.watermark_ms == 50 - 12
    assert stream.send(rows([45], 2)) == []
    assert stream.counts() == {"records": 2, "accepted": 2, "rows": 4, "windowed": 2, "quarantined": 2}
    (closed,) = windows(stream.send(Heartbeat("m", 50 + 12)))
    assert (closed.start_ms, closed.counts.quarantined) == (40, 2)


def test_row_within_the_skew_counts() -> None:
    stream = Stream()
    stream.send(rows([APPENDED_MS + 3]))

    assert stream.state.watermark_ms == APPENDED_MS + 3 - 12
    assert stream.counts()["windowed"] == 1


def test_rows_of_the_future_alone_leave_no_window_and_no_watermark() -> None:
    stream = Stream()
    stream.send(rows([5_000]))

    assert stream.state.windows == {}
    assert stream.state.watermark_ms is None
    assert stream.state.pending == {"m": Pending(quarantined=1)}


def test_rows_before_the_epoch_are_rejected_and_hide_no_neighbour() -> None:
    stream = Stream()
    stream.send(rows([-1, 15, -(2**62)], 1))

    assert stream.counts() == {"records": 1, "accepted": 1, "rows": 3, "windowed": 1, "rejected": 2}
    (closed,) = windows(stream.send(Heartbeat("m", 500)))
    assert (closed.start_ms, closed.counts.seen, closed.counts.tested, closed.counts.rejected) == (10, 1, 1, 2)


def test_reference_is_asked_for_each_window_of_a_frame() -> None:
    # A reference is in force from 10 on: rows before are counted and not kept, rows behind are kept.
    rules = StreamRules(TIME, lambda _, start: CONTRACTS["m"] if start >= 10 else None, FramePriorities(b"key"), 4)
    stream = Stream(rules)
    stream.send(rows([5, 15]))

    before, behind = windows(stream.send(Heartbeat("m", 500)))

    assert (before.counts.seen, before.counts.tested, before.sample) == (1, 0, None)
    assert (behind.counts.seen, behind.counts.tested) == (1, 1)


def test_rows_that_are_not_finite_are_rejected_and_counted_in_their_window() -> None:
    values = np.zeros((3, 2), np.float32)
    values[0, 1], values[2, 0] = np.nan, np.inf
    stream = Stream()
    stream.send(rows([11, 12, 13], layers={"fc": values}))

    assert stream.counts() == {"records": 1, "accepted": 1, "rows": 3, "windowed": 1, "rejected": 2}
    (closed,) = windows(stream.send(Heartbeat("m", 500)))
    assert (closed.counts.seen, closed.counts.rejected) == (1, 2)


def test_tensors_the_reference_does_not_know_are_counted_and_left_out() -> None:
    layers = {"fc": np.zeros((1, 2), np.float32), "extra": np.full((1, 9), np.nan, np.float32)}
    stream = Stream()
    stream.send(rows([11], layers=layers))

    (closed,) = windows(stream.send(Heartbeat("m", 500)))

    assert (closed.counts.seen, closed.counts.ignored_tensors) == (1, 1)
    assert closed.sample is not None
    assert list(closed.sample.layers) == ["fc"]


def test_frame_seen_before_is_a_duplicate_while_its_window_is_open() -> None:
    #   open: duplicate          closed: late
    stream = Stream()
    stream.send(rows([11, 25], 1))
    assert stream.send(rows([11, 25], 1)) == []
    assert stream.counts() == {"records": 2, "accepted": 1, "duplicate": 1, "rows": 2, "windowed": 2}

    stream.send(rows([33], 2))
    assert stream.send(rows([11, 25], 1)) == [], "one of its windows is open and has counted it"
    closed = windows(stream.send(Heartbeat("m", 500)))
    assert [(w.start_ms, w.counts.duplicate) for w in closed] == [(20, 2), (30, 0)]
    (late,) = stream.send(rows([11, 25], 1))
    assert isinstance(late, RowsLate)
    assert late.rows == (0, 1)


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (None, b"m", "no_value"),
        (b"", b"m", "truncated"),
        (b"poison", b"m", "truncated"),
        (rows([1]).encode(), b"other", "key_mismatch"),
        (rows([1]).encode(), None, "key_mismatch"),
        (Heartbeat("m", 1).encode(), b"other", "key_mismatch"),
        (rows([1], layers={"gc": np.zeros((1, 2), np.float32)}).encode(), b"m", "missing_tensor:layer.fc"),
        (rows([1], width=3).encode(), b"m", "wrong_dimension"),
        (rows([1], model="classes").encode(), b"classes", "missing_tensor:predicted"),
    ],
)
def test_record_that_cannot_be_used_is_dead_lettered_as_it_came(
    value: bytes | None, key: bytes | None, reason: str
) -> None:
    stream = Stream()

    (letter,) = stream.send(value, key, headers=(("mine", b"kept"),))

    assert isinstance(letter, DeadLettered)
    assert letter.reason == reason
    assert (letter.record.value, letter.record.key, letter.record.headers) == (value, key, (("mine", b"kept"),))
    assert stream.counts() == {"records": 1, "dead_lettered": 1}
    assert stream.state.position == 1


def test_refused_frame_leaves_no_trace_in_windows_or_time() -> None:
    stream = Stream()
    stream.send(rows([11], 1))
    before = (stream.state.watermark_ms, dict(stream.state.windows))

    stream.send(rows([900], 2, width=3))

    assert (stream.state.watermark_ms, stream.state.windows) == before


def test_heartbeat_closes_windows_of_every_model_on_the_partition() -> None:
    stream = Stream()
    stream.send(rows([11], 1))
    stream.send(rows([12], 2, model="classes", predicted=np.array([1])))

    closed = windows(stream.send(Heartbeat("m", 40)))

    assert [(w.model, w.start_ms) for w in closed] == [("classes", 10), ("m", 10)]
    assert stream.counts()["heartbeats"] == 1


def test_heartbeat_from_the_far_future_moves_nothing() -> None:
    stream = Stream()
    stream.send(rows([11], 1))

    assert stream.send(Heartbeat("m", APPENDED_MS + 4)) == []
    assert stream.state.watermark_ms == -1


def test_idle_partition_closes_its_windows_by_the_clock_and_later_rows_are_late() -> None:
    #   idle 5, lateness 12: at 37 nothing older than 20 can come any more
    stream = Stream()
    stream.send(rows([11], 1))
    assert stream.idle(36) == []

    (closed,) = windows(stream.idle(37))
    (late,) = stream.send(rows([12], 2))

    assert (closed.start_ms, closed.close_offset) == (10, 1)
    assert isinstance(late, RowsLate)


def test_idle_partition_without_a_record_stays_without_time() -> None:
    stream = Stream()
    assert stream.idle(10**9) == []
    assert stream.state.watermark_ms is None


def test_model_without_a_reference_is_counted_and_nothing_is_kept() -> None:
    stream = Stream()
    stream.send(rows([11], model="stranger", layers={"any": np.zeros((1, 7), np.float32)}))

    (closed,) = windows(stream.send(Heartbeat("m", 500)))

    assert (closed.model, closed.counts.seen, closed.counts.tested, closed.sample) == ("stranger", 1, 0, None)


def test_claimed_origins_are_not_believed() -> None:
    stream = Stream()
    stream.send(rows([11], 1, origins=[Origin(frame_id("another"), 5, 9, 9)]))

    (closed,) = windows(stream.send(Heartbeat("m", 500)))

    assert closed.sample is not None
    assert closed.sample.row_origins() == [Origin(frame_id(1), 0, 0, 0)]


def test_output_of_another_width_does_not_spoil_the_window() -> None:
    stream = Stream()
    stream.send(rows([11], 1, output=np.array([[0.5, 0.5]], np.float32)))
    stream.send(rows([12], 2, output=np.array([[0.2, 0.2, 0.6]], np.float32)))

    (closed,) = windows(stream.send(Heartbeat("m", 500)))

    assert closed.counts.tested == 2


def test_frame_with_a_row_for_every_window_is_taken_in_good_time() -> None:
    stream = Stream()
    closed = windows(stream.send(rows(range(0, 600, 10))) + stream.send(Heartbeat("m", 900)))

    assert [w.start_ms for w in closed] == list(range(0, 600, 10))


def test_full_window_keeps_k_rows_and_counts_all() -> None:
    stream = Stream()
    stream.send(rows([11] * 9))

    (closed,) = windows(stream.send(Heartbeat("m", 500)))

    assert (closed.counts.seen, closed.counts.tested) == (9, RULES.k)


def test_traceparents_are_gathered_and_a_null_one_is_passed_over() -> None:
    stream = Stream()
    stream.send(rows([11], 1), headers=(("traceparent", b"00-a"), ("traceparent", None)))
    stream.send(rows([12], 2), headers=(("traceparent", b"00-b"),))

    (closed,) = windows(stream.send(Heartbeat("m", 500)))

    assert closed.traceparents == ("00-a", "00-b")


def test_committable_is_the_first_record_of_the_oldest_open_window() -> None:
    #   offsets   0    1    2    3
    #   windows   10   20   30   32 closes [10, 20)
    stream = Stream()
    for number, time in enumerate([11, 21, 31]):
        stream.send(rows([time], number))
    assert stream.state.committable == 0

    stream.send(rows([32], 3))
    assert stream.state.committable == 1

    stream.send(Heartbeat("m", 900))
    assert stream.state.committable == stream.state.position == 5


def test_replayed_records_rebuild_windows_and_tell_nothing_again() -> None:
    #   committed: offset 1, position 5        records 1 to 4 are replayed
    log: list[Frame | bytes] = [rows([11], 1), rows([31], 2), b"poison", rows([5, 32], 3), rows([31], 2)]
    first = Stream()
    for entry in log:
        first.send(entry)
    checkpoint = first.state.checkpoint(10)
    assert (first.state.committable, checkpoint.position) == (1, 5)

    again = Stream()
    again.state = recover("t", 0, 1, Checkpoint.decode(checkpoint.encode(), window_ms=10))
    assert [again.send(entry) for entry in log[1:]] == [[]] * 4

    assert again.counts() == {}
    assert again.state.pending == first.state.pending
    assert windows(again.send(Heartbeat("m", 900)))[0].counts == windows(first.send(Heartbeat("m", 900)))[0].counts


def test_frame_sent_again_is_counted_by_the_window_its_rows_were_too_early_for_and_a_replay_agrees() -> None:
    #   0        10        20          offset 0   f: 8, 14 (its clock runs ahead: 14 is quarantined)
    #   [ A   8  )[ B  14  )                  1   g: 13        B opens here: a replay begins at 1
    #                                         2   f again      A has counted it; B has not
    #                                         3   22, so W = 10: A closes, and a replay does not know A
    def at(offset: int, timestamp_ms: int, frame: Frame) -> Record:
        return Record("t", 0, offset, timestamp_ms, b"m", frame.encode())

    early = rows([8, 14], "f")
    log = [at(0, 8, early), at(1, 13, rows([13], "g")), at(2, 14, early), at(3, 22, rows([22], "h"))]
    state = recover("t", 0, 0, None)
    for record in log:
        state, _ = step(state, record, 0, RULES)
    window = state.windows[10, "m"]
    assert (window.seen, state.accounts.duplicate, state.accounts.quarantined) == (2, 0, 1)
    assert (state.accounts.rows, state.accounts.windowed) == (2 + 1 + 1 + 1, 4)

    replayed = recover("t", 0, state.committable, state.checkpoint(10))
    assert replayed.position == 1
    for record in log[1:]:
        replayed, _ = step(replayed, record, 0, RULES)
    assert replayed.windows[10, "m"].seen == window.seen
    assert replayed.watermark_ms == state.watermark_ms


def test_commit_in_the_middle_of_a_replay_keeps_the_position_already_reached() -> None:
    state = recover("t", 0, 3, Checkpoint(10, 40, 9))
    assert state.checkpoint(10).position == 9
    assert isinstance(state, PartitionState)
    assert state.committable == 3


def test_a_record_whose_headers_cannot_be_read_is_dead_lettered() -> None:
    record = Record("activations", 0, 0, 0, b"m", b"x", UNREADABLE_HEADERS)
    state, (letter,) = step(PartitionState("activations", 0), record, 0, RULES)
    assert isinstance(letter, DeadLettered)
    assert letter.reason == "bad_headers"
    assert state.position == 1


def test_clock_closes_nothing_while_a_replay_is_under_way() -> None:
    #   offsets   0 1 | 2       processed up to 2 before the restart; the window [0, 10) is open
    #   seen      0 END 1 END   an end before offset 2 is what a broker that is just back shows
    stream = Stream()
    stream.state = recover("t", 0, 0, Checkpoint(10, None, 2))

    stream.send(rows([1, 2], "first"))
    assert not stream.idle(now_ms=500)
    stream.send(rows([3], "second"))
    (closed,) = stream.idle(now_ms=500)

    assert isinstance(closed, WindowClosed)
    assert closed.counts.seen == 3


# Rows to be judged one by one


def arrived(effects: Sequence[Effect]) -> list[tuple[int, list[int] | None]]:
    return [(e.start_ms, None if e.rows is None else e.rows.tolist()) for e in effects if isinstance(e, RowsArrived)]


def test_every_row_that_is_accounted_for_in_a_window_arrives_once() -> None:
    #   windows  [ 0 )[ 10 )[ 20 )[ 30 ) ...   a frame of three windows, one closed by then, and two rows without one
    stream = Stream()
    assert arrived(stream.send(rows([34], "first", model="judged"))) == [(30, None)]
    mixed = rows([2, 25, 31, 26, 90_000, -4], "mixed", model="judged")
    effects = stream.send(mixed)
    assert arrived(effects) == [(0, [0, 1, 2, 3])], "at once, whatever windows they fall into"
    assert [effect.rows for effect in effects if isinstance(effect, RowsLate)] == [(0,)]
    told = [effect for effect in effects if isinstance(effect, RowsArrived)]
    assert all(effect.frame.frame_id == frame_id("mixed") for effect in told)
    assert stream.counts()["quarantined"] == stream.counts()["rejected"] == 1


def test_rows_of_two_references_arrive_apart() -> None:
    contracts = {start: Contract({"fc": 2}, is_judged=True) for start in (20, 30)}
    stream = Stream(StreamRules(TIME, lambda _, start: contracts.get(start), FramePriorities(b"key"), k=4))
    assert arrived(stream.send(rows([35, 25, 34, 15]))) == [(20, [1]), (30, [0, 2])], "and 15 has none"


def test_rows_with_bad_numbers_arrive_too_and_rows_counted_before_do_not() -> None:
    bad = {"fc": np.array([[0, 0], [np.nan, 0]], np.float32)}
    stream = Stream()
    frame = rows([34, 35], model="judged", layers=bad)
    assert arrived(stream.send(frame)) == [(30, None)], "the verdict names what is not finite"
    assert arrived(stream.send(frame)) == [], "a duplicate"
    again = rows([35, 48], model="judged")  # the same id: its window has it already, the next one does not
    assert arrived(stream.send(again)) == [(40, [1])]


def test_a_replay_a_refusal_and_a_model_without_detectors_tell_of_no_arrival() -> None:
    assert arrived(Stream().send(rows([34]))) == []
    stream = Stream()
    stream.state.replay_until = 1
    assert arrived(stream.send(rows([34], "before", model="judged"))) == []
    assert arrived(stream.send(rows([35], "after", model="judged"))) == [(30, None)]
    assert arrived(stream.send(rows([36], "wide", model="judged", width=3))) == []
