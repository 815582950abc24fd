"""The k rows of smallest priority, as rows of one frame: what they bring along and where they came from."""

import weakref

import numpy as np
from numpy.typing import NDArray
from tests.support.frames import frame_id

from hydrophone.schemas.frame import Frame
from hydrophone.streams.sampling import BottomK


def frame_of(rows: int, name: int, **parts: object) -> Frame:
    values = np.full((rows, 2), name, np.float32)
    values[:, 1] = np.arange(rows)
    more: dict[str, object] = {"event_time_ms": np.arange(rows), "frame_id": frame_id(name)} | parts
    return Frame("m", {"fc": values}, **more)  # type: ignore[arg-type]


def offer(sketch: BottomK, frame: Frame, priorities: list[int], rows: NDArray[np.intp] | None = None) -> None:
    sketch.offer(frame, rows, np.array(priorities, np.uint64), partition=3, offset=17, record_bytes=10_000)


def test_sample_is_in_order_of_priority_and_names_where_each_row_came_from() -> None:
    sketch = BottomK(2)
    offer(sketch, frame_of(3, 1), [30, 10, 20])

    sample = sketch.sample()

    assert sample is not None
    assert [(o.frame_id, o.row, o.partition, o.offset) for o in sample.row_origins()] == [
        (frame_id(1), 1, 3, 17),
        (frame_id(1), 2, 3, 17),
    ]
    assert sample.layers["fc"][:, 1].tolist() == [1, 2]
    assert sample.event_time_ms.tolist() == [1, 2]


def test_nothing_offered_is_no_sample() -> None:
    assert BottomK(5).sample() is None
    assert len(BottomK(5)) == 0


def test_fewer_than_k_rows_are_all_kept() -> None:
    sketch = BottomK(10)
    offer(sketch, frame_of(3, 1), [3, 1, 2])
    offer(sketch, frame_of(2, 2), [9, 8], np.array([0, 1]))

    sample = sketch.sample()

    assert sample is not None
    assert len(sample) == len(sketch) == 5


def test_saturated_sketch_holds_fewer_than_twice_k_rows() -> None:
    sketch = BottomK(4)
    for number in range(100):
        offer(sketch, frame_of(3, number), [1_000 - number, 2_000 - number, 3_000 - number])
        assert sketch._held < 8

    sample = sketch.sample()

    assert sample is not None
    assert [int(row[0]) for row in sample.layers["fc"]] == [99, 98, 97, 96]


def test_a_few_rows_of_many_large_records_do_not_keep_them_alive() -> None:
    sketch, records = BottomK(1_000), []
    for number in range(60):
        values = np.full((100, 250), number, np.float32)
        frame = Frame("m", {"fc": values}, event_time_ms=np.arange(100), frame_id=frame_id(number))
        records.append(weakref.ref(values))
        sketch.offer(
            frame, np.array([7]), np.array([number], np.uint64), partition=0, offset=number, record_bytes=values.nbytes
        )
    del values, frame

    alive = sum(record() is not None for record in records)
    assert alive * 100_000 <= 2 * 1_000 * 1_000 + 100_000, "no more in vain than 2k rows take"
    sample = sketch.sample()

    assert sample is not None
    assert [(o.frame_id, o.row, o.offset) for o in sample.row_origins()] == [(frame_id(i), 7, i) for i in range(60)]
    assert sample.layers["fc"][:, 0].tolist() == list(range(60))


def test_what_rows_bring_does_not_depend_on_rows_that_were_there_for_a_while() -> None:
    # Row 0, of another make, survives the first compaction beside row 1 and not the second: [0 1]2 3  ->  0[1 4]5
    sketch = BottomK(2)
    offer(sketch, Frame("m", {"fc": np.ones((1, 2))}, event_time_ms=np.array(0), frame_id=frame_id(0)), [50])
    for number, priority in ((1, 40), (2, 70), (3, 80), (4, 10), (5, 45)):
        values = np.full((1, 2), number, np.float16)
        parts = {"event_time_ms": np.array(number), "sample_ids": ["x"], "label": np.array([number])}
        offer(sketch, Frame("m", {"fc": values}, frame_id=frame_id(number), **parts), [priority])  # type: ignore[arg-type]

    sample = sketch.sample()

    assert sample is not None
    assert sample.layers["fc"].dtype == np.float16
    assert sample.sample_ids == ["x", "x"]
    assert sample.label is not None
    assert sample.label.tolist() == [4, 1]


def test_outputs_of_unequal_width_leave_their_classes() -> None:
    sketch = BottomK(4)
    offer(sketch, frame_of(1, 1, output=np.array([[0.1, 0.9]], np.float32)), [1])
    offer(sketch, frame_of(1, 2, output=np.array([[0.2, 0.2, 0.6]], np.float32)), [2])

    sample = sketch.sample()

    assert sample is not None
    assert sample.output is None
    assert sample.classes() is not None
    assert list(sample.classes()) == [1, 2]  # type: ignore[arg-type]
