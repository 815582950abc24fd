"""The k rows of smallest priority, as rows of one frame: what they bring along and where they came from."""

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


def test_rows_copied_out_of_a_large_record_do_not_keep_it_alive() -> None:
    sketch = BottomK(4)
    frame = frame_of(100, 1)
    sketch.offer(
        frame, np.array([7]), np.array([1], np.uint64), partition=0, offset=0, record_bytes=len(frame.encode())
    )

    (chunk,) = sketch._chunks

    assert len(chunk.frame) == 1
    assert not np.shares_memory(chunk.frame.layers["fc"], frame.layers["fc"])
    assert [origin.row for origin in chunk.frame.row_origins()] == [7]


def test_outputs_of_unequal_width_leave_their_classes() -> None:
    sketch = BottomK(4)
    offer(sketch, frame_of(1, 1, output=np.array([[0.1, 0.9]], np.float32)), [1])
    offer(sketch, frame_of(1, 2, output=np.array([[0.2, 0.2, 0.6]], np.float32)), [2])

    sample = sketch.sample()

    assert sample is not None
    assert sample.output is None
    assert sample.classes() is not None
    assert list(sample.classes()) == [1, 2]  # type: ignore[arg-type]
