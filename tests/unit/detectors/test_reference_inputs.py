"""What a reference takes and refuses: rows beyond one record, rows that are not finite, frames without classes."""

import numpy as np
import pytest

from hydrophone.detectors import Reference, fit_reference
from hydrophone.schemas import Frame
from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import concat
from hydrophone.schemas.origins import MAX_ROWS

WINDOW = WindowBounds(start_ms=0, end_ms=1000)


def batch(rows: int, *, seed: int, classes: bool = True) -> Frame:
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, 2, rows) if classes else None
    values = rng.standard_normal((rows, 4)).astype(np.float32)
    return Frame("m", {"a": values}, event_time_ms=np.zeros(rows, np.int64), predicted=predicted)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return fit_reference([batch(400, seed=1)], permutations=99)


def test_rows_that_are_not_finite_are_counted_in_the_score(reference: Reference) -> None:
    frame = batch(60, seed=2)
    frame.layers["a"][:3, 0] = np.nan
    score = reference.test(frame).to_score(window=WINDOW)
    assert (score.counts.seen, score.counts.tested, score.counts.rejected) == (57, 57, 3)


def test_a_window_without_a_finite_row_is_not_tested_and_says_how_many_there_were(reference: Reference) -> None:
    frame = batch(30, seed=3)
    frame.layers["a"][:] = np.inf
    score = reference.test(frame).to_score(window=WINDOW)
    assert (score.status, score.reason, score.counts.rejected) == ("not_tested", "no_finite_rows", 30)


def test_a_frame_without_classes_is_refused_where_the_reference_matches_classes(reference: Reference) -> None:
    with pytest.raises(FrameInvalid, match="missing_tensor:predicted"):
        reference.test(batch(60, seed=4, classes=False))


def test_rows_gathered_in_memory_may_be_more_than_one_record_holds() -> None:
    rows = concat([batch(MAX_ROWS, seed=5), batch(10, seed=6)])
    assert len(rows) == MAX_ROWS + 10
    with pytest.raises(FrameInvalid, match="bad_row_count"):
        rows.encode()
