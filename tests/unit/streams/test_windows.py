"""Where an instant falls, and what is left of a window when it closes."""

import pytest

from hydrophone.streams.checkpoint import Pending
from hydrophone.streams.sampling import BottomK
from hydrophone.streams.windows import MAX_TRACE_LINKS, OpenWindow, window_start


def opened() -> OpenWindow:
    return OpenWindow("m", 60, 120, 7, None, BottomK(5))


@pytest.mark.parametrize(
    ("instant_ms", "start_ms"), [(0, 0), (59, 0), (60, 60), (119, 60), (120, 120), (-1, -60), (-60, -60)]
)
def test_window_start_is_on_the_grid_at_or_before_the_instant(instant_ms: int, start_ms: int) -> None:
    #   -60      0       60      120
    #   [ ...... )[ .... )[ .... )[ ...
    assert window_start(instant_ms, 60) == start_ms


def test_closed_window_tells_its_counts_and_what_was_pending() -> None:
    window = opened()
    window.seen, window.rejected, window.duplicate, window.ignored_tensors = 9, 2, 1, 3

    closed = window.close(partition=4, close_offset=31, pending=Pending(late=5, quarantined=6, rejected=7))

    assert (closed.model, closed.start_ms, closed.end_ms) == ("m", 60, 120)
    assert (closed.partition, closed.first_offset, closed.close_offset) == (4, 7, 31)
    counts = closed.counts
    assert (counts.seen, counts.tested, counts.rejected) == (9, 0, 2 + 7)
    assert (counts.quarantined, counts.late_since_previous) == (6, 5)
    assert (counts.duplicate, counts.ignored_tensors) == (1, 3)
    assert closed.sample is None


def test_links_are_kept_once_each_and_only_a_few() -> None:
    window = opened()
    for number in range(2 * MAX_TRACE_LINKS):
        window.link(f"trace {number // 2}")
        window.link("trace 0")

    traces = window.close(partition=0, close_offset=1, pending=Pending()).traceparents

    assert len(traces) == len(set(traces)) == MAX_TRACE_LINKS
