"""A score's id names the window and the reference, whatever came out of the test."""

from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.score import ReferenceId, score_id

WINDOW = WindowBounds(start_ms=0, end_ms=60_000)
REFERENCE = ReferenceId(version="1", sha256="a" * 64)


def test_the_same_window_under_the_same_reference_has_the_same_id() -> None:
    renamed = ReferenceId(version="renamed", sha256="a" * 64)
    assert score_id("m", WINDOW, REFERENCE) == score_id("m", WINDOW, renamed)


def test_another_model_window_or_reference_has_another_id() -> None:
    later = WindowBounds(start_ms=60_000, end_ms=120_000)
    other = ReferenceId(version="1", sha256="b" * 64)
    ids = {
        score_id("m", WINDOW, REFERENCE),
        score_id("n", WINDOW, REFERENCE),
        score_id("m", later, REFERENCE),
        score_id("m", WINDOW, other),
        score_id("m", WINDOW, None),
    }
    assert len(ids) == 5
