"""The published method, kept as it is coded: what it gets right and what it gets wrong."""

import numpy as np
from benchmarks.published import Published

from hydrophone.schemas.frame import Frame


def frame(rows: int, seed: int, shift: float = 0.0) -> Frame:
    generator = np.random.default_rng(seed)
    predicted = generator.integers(0, 3, rows)
    values = (predicted[:, None] + generator.standard_normal((rows, 8)) + shift).astype(np.float32)
    return Frame("m", {"fc": values}, event_time_ms=np.array(0), predicted=predicted)


def test_a_window_of_another_law_is_detected_in_every_redraw() -> None:
    assert Published(frame(1_000, 0), redraws=20).detection_rates(frame(100, 1, shift=2.0)) == {"fc": 1.0}


def test_clean_windows_are_flagged_far_less_than_the_level_says() -> None:
    """Classes matched, but multipliers that do not know of classes: conservative, as measured."""
    method = Published(frame(2_000, 0), redraws=20)
    rates = [method.detection_rates(frame(100, seed))["fc"] for seed in range(1, 11)]
    assert np.mean(rates) < 0.05
