"""A window written down and taken up again goes on as if it had never been left; what cannot go on so is not used."""

import numpy as np
import pytest
from tests.support.frames import frame_id

from hydrophone.schemas.frame import Frame
from hydrophone.schemas.identity import FramePriorities
from hydrophone.streams.checkpoint import Checkpoint, Pending, Snapshots
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.processor import PartitionState, StreamRules, recover, step
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.snapshots import SnapshotBook, SnapshotRules, taken_up
from hydrophone.streams.watermark import TimeRules

KEY = b"a secret of the test"
K = 8
CONTRACT = Contract({"fc": 3})
TIME = TimeRules(1_000, 100, 0, 0, 0)
RULES = StreamRules(TIME, lambda *_: CONTRACT, FramePriorities(KEY), K)
SNAPSHOTS = SnapshotRules(1, K, KEY, "id")


def record(offset: int, rows: int = 3, width: int = 3, kind: int | None = None) -> Record:
    """Frames of four makes in turn: what the rows of one bring, those of another lack."""
    rng = np.random.default_rng(offset)
    kind = offset % 4 if kind is None else kind
    frame = Frame(
        "m",
        {"fc": rng.standard_normal((rows, width)).astype(np.float16 if kind == 1 else np.float32)},
        event_time_ms=np.full(rows, 500),
        frame_id=frame_id(offset),
        sample_ids=[f"é {offset}/{row}" for row in range(rows)],
        client_ids=["c", *[None] * (rows - 1)] if kind == 2 else None,
        output=np.full((rows, 2), 0.5, np.float32) if kind != 3 else None,
        predicted=np.zeros(rows, np.int64) if kind == 3 else None,
        uncertainty={"entropy": np.full(rows, np.nan)} if kind == 2 else None,
    )
    return Record("t", 0, offset, 600, b"m", frame.encode(), (("traceparent", b"00-%d" % offset),))


def closed(state: PartitionState) -> WindowClosed:
    _, effects = step(state, PartitionEnd(0), 100_000, RULES)
    window = effects[0]
    assert isinstance(window, WindowClosed)
    return window


def saved(state: PartitionState, book: SnapshotBook, table: dict[bytes, bytes]) -> None:
    book.round_ms = -1
    for key, value in book.save(state, 0, SNAPSHOTS):
        table.pop(key, None)
        if value is not None:
            table[key] = value


@pytest.mark.parametrize("every", [1, 3, 7])
def test_a_window_that_was_taken_up_again_and_again_is_the_one_that_was_never_left(every: int) -> None:
    whole, state = PartitionState("t", 0), PartitionState("t", 0)
    book, table = SnapshotBook(), dict[bytes, bytes]()
    for offset in range(20):
        whole, _ = step(whole, record(offset), 0, RULES)
        state, _ = step(state, record(offset), 0, RULES)
        if offset % every == 0:
            saved(state, book, table)
            checkpoint = Checkpoint.decode(state.checkpoint(1_000).encode(), window_ms=1_000)
            found = taken_up(checkpoint, state.committable, lambda: table, SNAPSHOTS, RULES.contract)
            assert not found.lost
            assert found.offset == offset + 1, "nothing is read again"
            state = recover("t", 0, found.offset, checkpoint, found.windows)
            book = SnapshotBook(found.written)

    expected, window = closed(whole), closed(state)

    assert window.counts == expected.counts
    assert (window.first_offset, window.traceparents) == (0, expected.traceparents)
    assert window.sample is not None
    assert expected.sample is not None
    assert window.sample.row_origins()[:] == expected.sample.row_origins()[:]
    for name in ("sample_ids", "client_ids", "attack"):
        assert getattr(window.sample, name) == getattr(expected.sample, name), name
    for name in ("output", "predicted", "label"):
        np.testing.assert_array_equal(getattr(window.sample, name), getattr(expected.sample, name))
    np.testing.assert_array_equal(window.sample.layers["fc"], expected.sample.layers["fc"])
    assert window.sample.layers["fc"].dtype == expected.sample.layers["fc"].dtype
    taken_back = {wire.key for wire in book.forget((0, "m"))}
    assert taken_back == table.keys(), "with the window everything of it goes"


def test_frame_ids_are_written_once() -> None:
    state, book, table = PartitionState("t", 0), SnapshotBook(), dict[bytes, bytes]()
    sizes = []
    for offset in range(6):
        state, _ = step(state, record(offset), 0, RULES)
        book.round_ms = -1
        wires = book.save(state, 0, SNAPSHOTS)
        sizes += [len(wire.value or b"") for wire in wires if b'"ids"' in wire.key]
        table |= {wire.key: wire.value or b"" for wire in wires}
    assert sizes == [16] * 6, "an id takes 16 bytes, once"


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (SnapshotRules(1, K + 1, KEY, "id"), "kept 8 rows and now 9"),
        (SnapshotRules(1, K, b"other", "other"), "another key"),
    ],
)
def test_what_was_sampled_by_other_rules_is_read_again(rules: SnapshotRules, why: str) -> None:
    state, book, table = PartitionState("t", 0), SnapshotBook(), dict[bytes, bytes]()
    for offset in range(4):
        state, _ = step(state, record(offset), 0, RULES)
    saved(state, book, table)
    checkpoint = state.checkpoint(1_000)

    found = taken_up(checkpoint, state.committable, lambda: table, rules, RULES.contract)

    assert why in found.lost
    assert (found.offset, found.windows) == (0, {}), "from the window's first record"
    assert {wire.key for wire in SnapshotBook(found.written).forget((0, "m"))} == table.keys()


@pytest.mark.parametrize("kind", [b'"head"', b'"ids"', b'"rows"'])
@pytest.mark.parametrize("becomes", [None, b"", b"{}"])
def test_half_of_a_snapshot_is_never_used(kind: bytes, becomes: bytes | None) -> None:
    state, book, table = PartitionState("t", 0), SnapshotBook(), dict[bytes, bytes]()
    state, _ = step(state, record(0), 0, RULES)
    saved(state, book, table)
    (key,) = (key for key in table if kind in key)
    del table[key]
    if becomes is not None:
        table[key] = becomes

    found = taken_up(state.checkpoint(1_000), 1, lambda: table, SNAPSHOTS, RULES.contract)

    assert found.lost
    assert (found.offset, found.windows) == (0, {})


def test_an_older_snapshot_than_the_one_that_is_counted_on_is_not_used() -> None:
    state, book, table = PartitionState("t", 0), SnapshotBook(), dict[bytes, bytes]()
    state, _ = step(state, record(0), 0, RULES)
    saved(state, book, table)
    older = dict(table)
    state, _ = step(state, record(1), 0, RULES)
    saved(state, book, table)

    assert taken_up(state.checkpoint(1_000), 2, lambda: older, SNAPSHOTS, RULES.contract).lost
    assert not taken_up(state.checkpoint(1_000), 2, lambda: table, SNAPSHOTS, RULES.contract).lost


def test_a_row_that_fits_into_no_record_leaves_its_window_to_be_read_again() -> None:
    wide = StreamRules(TIME, lambda *_: Contract({"fc": 300_000}), FramePriorities(KEY), K)
    state, book, table = PartitionState("t", 0), SnapshotBook(), dict[bytes, bytes]()
    state, _ = step(state, record(0, rows=1, width=300_000, kind=0), 0, wide)
    saved(state, book, table)

    assert not table
    assert state.committable == 0
    assert state.checkpoint(1_000).snapshots is None


def test_a_text_that_counts_on_snapshots_is_short_and_not_for_who_does_not_know_them() -> None:
    counted_on = Snapshots(100_000, "0123456789abcdef", 2**62)
    pending = {f"model-{number}": Pending(2**40, 2**40, 2**40) for number in range(1_000)}
    text = Checkpoint(1_000, 2**60, 2**62, pending, counted_on).encode()

    assert len(text) <= 4_096
    assert '"v":2' in text
    found = Checkpoint.decode(text, window_ms=1_000)
    assert found is not None
    assert found.snapshots == counted_on
    assert '"v":1' in Checkpoint(1_000, 0, 0).encode()


def test_a_commit_within_a_replay_begins_where_windows_are_yet_to_be_rebuilt() -> None:
    #   offset   0 1 2 3
    #   early    ────┤ a snapshot until 3        a replay begins at 1, for `late`; nothing was read yet
    #   late       ─────
    both = StreamRules(TIME, lambda *_: CONTRACT, FramePriorities(KEY), K)
    state, book, table = PartitionState("t", 0), SnapshotBook(), dict[bytes, bytes]()
    for offset in range(3):
        frame = Frame.decode(record(offset).value or b"")
        times = np.full(3, 500 if offset != 1 else 1_050)
        value = Frame("m", frame.layers, event_time_ms=times, frame_id=frame.frame_id).encode()
        state, _ = step(state, Record("t", 0, offset, 2_000, b"m", value), 0, both)
    book.round_ms = -1
    for key, content in book.save(state, 0, SNAPSHOTS, room=1):
        table[key] = content or b""
    checkpoint = state.checkpoint(1_000)
    assert (state.committable, checkpoint.position) == (1, 3)

    found = taken_up(checkpoint, 1, lambda: table, SNAPSHOTS, both.contract)
    again = recover("t", 0, found.offset, checkpoint, found.windows)

    assert [window.covered_until for window in again.windows.values()] == [3]
    assert again.committable == 1
    assert again.checkpoint(1_000).snapshots == checkpoint.snapshots
