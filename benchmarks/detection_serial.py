"""Traffic whose rows remember the one before: a permutation test takes them for many more than they are."""

import statistics
import uuid
from collections.abc import Iterator
from typing import Final

import numpy as np
from benchmarks.detection_effort import Effort, rate_detail, seeded
from benchmarks.harness import Measured
from numpy.typing import NDArray

from hydrophone.detectors import Reference, fit_reference, mmd_permutation_test
from hydrophone.schemas.frame import Frame

__all__ = ["serial_rows"]

ALPHA: Final = 0.05
MEMORY: Final = 0.6
ROWS: Final = 100
D: Final = 8
CLEAN_WINDOWS: Final = 999
"""Given so many the level of a rank deviates by .7 points from its nominal 5 %."""


def serial_rows(effort: Effort) -> Iterator[Measured]:
    """Gaussian rows of 8 features, each remembering .6 of the one before it, as in the design's simulations."""
    plain = [_plain(index) for index in range(effort.shift_windows)]
    yield Measured("ar1-plain", statistics.fmean(plain), f"{rate_detail(plain)}; synthetic, n=1,000, m={ROWS}, D={D}")
    reference = _calibrated()
    ranked = [reference.test(_window(7, index)).rejected for index in range(2 * effort.shift_windows)]
    detail = f"{rate_detail(ranked)}; one reference, ranked among {CLEAN_WINDOWS} clean windows of {ROWS}"
    yield Measured("ar1-windows", statistics.fmean(ranked), detail)


def _plain(index: int) -> bool:
    rows = _autoregressive(1_000 + ROWS, seeded(5, index))
    result = mmd_permutation_test(rows[:1_000], rows[1_000:], permutations=199, seed=index, device="cpu")
    return result.p_value is not None and result.p_value <= ALPHA


def _calibrated() -> Reference:
    reference = fit_reference([_rows(1_500, 8)], permutations=199, device="cpu")
    found = (reference.statistic(_window(6, index), rows=ROWS) for index in range(CLEAN_WINDOWS))
    return reference.calibrate([statistic for statistic in found if statistic is not None], rows=ROWS)


def _window(*key: int) -> Frame:
    return _rows(ROWS, *key)


def _rows(rows: int, *key: int) -> Frame:
    frame_id = str(uuid.uuid5(uuid.NAMESPACE_OID, repr(key)))
    layers = {"fc": _autoregressive(rows, seeded(*key))}
    return Frame("serial", layers, event_time_ms=np.arange(rows), frame_id=frame_id)


def _autoregressive(rows: int, generator: np.random.Generator) -> NDArray[np.float32]:
    noise = generator.standard_normal((rows, D)) * np.sqrt(1 - MEMORY**2)
    values = np.empty((rows, D))
    values[0] = generator.standard_normal(D)
    for row in range(1, rows):
        values[row] = MEMORY * values[row - 1] + noise[row]
    return values.astype(np.float32)
