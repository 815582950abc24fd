from threading import Thread

import pytest

from hydrophone.schemas import Frame
from hydrophone.streams.outbox import Outbox, Waiting


def unbuilt() -> Frame:
    pytest.fail("the outbox never builds a frame")


def of(rows: int) -> Waiting:
    return Waiting(rows, unbuilt, None)


def taken(outbox: Outbox) -> list[int]:
    return [item.rows for item in outbox.take(idle_ms=1, linger_ms=1)]


def test_rows_over_the_limit_are_refused_until_others_are_taken() -> None:
    outbox = Outbox(limit_rows=10, batch_rows=100)
    assert [outbox.put(of(rows)) for rows in (6, 5, 4, 1)] == [True, False, True, False]
    assert taken(outbox) == [6, 4]
    assert outbox.put(of(10))


def test_a_batch_ends_before_the_frame_that_would_overfill_it() -> None:
    outbox = Outbox(limit_rows=100, batch_rows=10)
    for rows in (4, 4, 4, 30, 1):
        outbox.put(of(rows))
    assert [taken(outbox) for _ in range(5)] == [[4, 4], [4], [30], [1], []]


def test_a_full_batch_does_not_linger() -> None:
    outbox = Outbox(limit_rows=100, batch_rows=4)
    outbox.put(of(4))
    assert len(outbox.take(idle_ms=1, linger_ms=3_600_000)) == 1


def test_the_frame_that_fills_a_batch_ends_the_wait() -> None:
    outbox = Outbox(limit_rows=100, batch_rows=4)
    outbox.put(of(1))
    Thread(target=lambda: outbox.put(of(3)), daemon=True).start()
    assert [item.rows for item in outbox.take(idle_ms=1, linger_ms=3_600_000)] == [1, 3]


def test_a_closed_outbox_refuses_and_gives_out_the_rest_without_waiting() -> None:
    outbox = Outbox(limit_rows=100, batch_rows=10)
    outbox.put(of(3))
    outbox.close()
    assert not outbox.put(of(1))
    assert [item.rows for item in outbox.take(idle_ms=3_600_000, linger_ms=3_600_000)] == [3]
    assert outbox.take(idle_ms=3_600_000, linger_ms=3_600_000) == []
