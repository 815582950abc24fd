"""The second stage, scene by scene. That its windows are the unsharded ones: `tests/property/test_merging.py`."""

from collections.abc import Sequence

import numpy as np
import pytest
from tests.support.frames import frame_id

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.score import Counts
from hydrophone.streams.checkpoint import Checkpoint, MergeCheckpoint
from hydrophone.streams.effects import DeadLettered, Effect, TimePassed, WindowClosed
from hydrophone.streams.merging import MergeRules, MergeState, merge_step, recover_merge
from hydrophone.streams.partials import Wire, encode_marker, encode_summary
from hydrophone.streams.record import Record

RULES = MergeRules(10, b"a secret of the test", 4)


def summary(partition: int, start_ms: int, rows: int = 2, width: int = 1, chunk_bytes: int = 10_000) -> list[Wire]:
    name = frame_id((partition, start_ms))
    frame = Frame("m", {"fc": np.zeros((rows, width), np.float32)}, event_time_ms=np.array(start_ms), frame_id=name)
    known = frame.with_origins(frame.row_origins(partition, 5))
    counts = Counts(seen=rows, tested=rows)
    closed = WindowClosed("m", start_ms, start_ms + 10, partition, 5, 9, counts, known, ())
    return encode_summary(closed, chunk_bytes)


def marker(partition: int, watermark_ms: int, partitions: int = 2) -> list[Wire]:
    return [encode_marker(TimePassed(partition, watermark_ms), partitions)]


def log_of(*wires: Sequence[Wire]) -> list[Record]:
    flat = [wire for some in wires for wire in some]
    return [Record("p", 3, offset, 0, key, value, tuple(h)) for offset, (key, value, h) in enumerate(flat)]


def take(state: MergeState, log: Sequence[Record]) -> list[Effect]:
    told: list[Effect] = []
    for record in log:
        _, effects = merge_step(state, record, RULES)
        told += effects
    return told


def restarted(state: MergeState) -> MergeState:
    text = state.checkpoint(RULES.window_ms).encode()
    return recover_merge("p", 3, state.committable, MergeCheckpoint.decode(text, window_ms=RULES.window_ms))


def test_a_window_waits_for_every_partition_and_closes_at_the_slowest() -> None:
    #   partition 0   [0,10)  W=10        W=20
    #   partition 1   [0,10)        W=10
    log = log_of(summary(0, 0), marker(0, 10), summary(1, 0), marker(0, 20), marker(1, 10))
    state = MergeState("p", 3)

    assert take(state, log[:-1]) == []
    (closed,) = take(state, log[-1:])

    assert isinstance(closed, WindowClosed)
    assert (closed.start_ms, closed.counts.seen) == (0, 4)
    assert [part.partition for part in closed.parts] == [0, 1]
    assert (state.committable, state.windows) == (len(log), {})


def test_a_partition_that_is_told_of_and_was_never_heard_holds_windows_back() -> None:
    assert take(MergeState("p", 3), log_of(summary(0, 0), marker(0, 100, 3), marker(1, 100, 3))) == []


def test_time_never_falls() -> None:
    # What is told again after a restart may be older.
    log = log_of(marker(1, 20), summary(0, 20), marker(0, 30), marker(0, 10), marker(1, 30))

    closed = take(MergeState("p", 3), log)

    assert [window.start_ms for window in closed if isinstance(window, WindowClosed)] == [20]


def test_a_restart_goes_on_from_the_oldest_open_window_and_tells_nothing_twice() -> None:
    #   offset    0            1            2         3         4            5          6
    #   record    0 [10,20)    0 [0,10)     0 W=20    1 W=10    1 [10,20)    1 W=20
    #   closed                                        [0,10)                 [10,20)
    log = log_of(summary(0, 10), summary(0, 0), marker(0, 20), marker(1, 10), summary(1, 10), marker(1, 20))
    state = MergeState("p", 3)
    (first,) = take(state, log[:4])
    assert isinstance(first, WindowClosed)

    state = restarted(state)

    assert (state.position, state.replay_until, state.closed_ms) == (0, 4, 10)
    (second,) = take(state, log)
    assert isinstance(second, WindowClosed)
    assert (second.start_ms, second.counts.seen) == (10, 4), "and the summary that was merged is no dead letter"


def test_a_summary_that_comes_after_its_window_is_refused_aloud_and_once() -> None:
    log = log_of(marker(0, 20), marker(1, 20), summary(0, 0))
    state = MergeState("p", 3)

    (letter,) = take(state, log)

    assert isinstance(letter, DeadLettered)
    assert (letter.reason, letter.record.offset) == ("late_summary", 2)
    assert take(restarted(state), log) == []


def test_a_summary_in_several_records_is_whole_only_with_all_of_them() -> None:
    chunks = summary(0, 0, rows=8, width=40, chunk_bytes=2_300)
    assert len(chunks) > 1

    lacking = take(MergeState("p", 3), log_of(chunks[1:], summary(1, 0), marker(0, 10), marker(1, 10)))
    shuffled = take(MergeState("p", 3), log_of(chunks[::-1], chunks[:1], marker(0, 10), marker(1, 10)))

    assert [w.counts.seen for w in lacking if isinstance(w, WindowClosed)] == [2]
    assert [w.counts.seen for w in shuffled if isinstance(w, WindowClosed)] == [8]


def test_partitions_that_kept_unlike_layers_are_counted_and_not_tested() -> None:
    closed = take(MergeState("p", 3), log_of(summary(0, 0), summary(1, 0, width=2), marker(0, 10), marker(1, 10)))

    assert [(w.counts.seen, w.counts.tested, w.sample) for w in closed if isinstance(w, WindowClosed)] == [(4, 0, None)]


def test_nonsense_is_dead_lettered() -> None:
    (letter,) = take(MergeState("p", 3), [Record("p", 3, 0, 0, b"m", b"nonsense", ())])

    assert isinstance(letter, DeadLettered)
    assert letter.reason == "bad_partial"


def test_the_checkpoint_of_many_partitions_fits_beside_an_offset() -> None:
    base, size = 1_700_000_000_000, 60_000
    watermarks = {number: base + number % 7 * size for number in range(0, 900, 2)}
    few = MergeCheckpoint(size, 12, base, 900, watermarks)
    many = MergeCheckpoint(size, 12, base, 9_000, dict.fromkeys(range(9000), base))

    assert MergeCheckpoint.decode(few.encode(), window_ms=size) == few
    assert len(few.encode()) <= 3_500
    assert len(many.encode()) <= 3_500
    again = MergeCheckpoint.decode(many.encode(), window_ms=size)
    assert again is not None
    assert (again.position, again.closed_ms, dict(again.watermarks)) == (12, base, {}), "those are told again"


def test_another_stages_checkpoint_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="another program"):
        MergeCheckpoint.decode(Checkpoint(10, 5, 3).encode(), window_ms=10)
