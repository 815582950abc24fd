"""What permutations cannot promise, ranks among clean windows do: dependent rows, and the one reference a user has."""

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.frames import plain_frame
from tests.support.windows import ALPHA, band

from hydrophone.detectors import Reference, fit_reference
from hydrophone.schemas.frame import Frame

pytestmark = [pytest.mark.statistical, pytest.mark.slow]

ROWS, D = 100, 8
CALIBRATION, WINDOWS = 499, 300


def autocorrelated(rows: int, rho: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """AR(1) in every feature, of variance 1."""
    values = rng.standard_normal((rows, D))
    for t in range(1, rows):
        values[t] = rho * values[t - 1] + np.sqrt(1 - rho**2) * values[t]
    return values.astype(np.float32)


def window(rho: float, rng: np.random.Generator, name: str) -> Frame:
    return plain_frame({"fc": autocorrelated(ROWS, rho, rng)}, name)


def calibrated(plain: Reference, rho: float, rng: np.random.Generator) -> Reference:
    statistics = [plain.statistic(window(rho, rng, f"c{k}"), rows=ROWS) for k in range(CALIBRATION)]
    return plain.calibrate([s for s in statistics if s is not None], rows=ROWS)


def test_autocorrelated_rows_alarm_by_permutation_and_not_by_rank() -> None:
    """At rho = .6 permutations reject at least 80 %, ranks at most 8 %: over six draws of everything (K = 299, 300
    windows each) ranks rejected 4.3 to 7.7 %, 5.4 on average.
    """
    rng = np.random.default_rng(13)
    plain = fit_reference([plain_frame({"fc": autocorrelated(600, 0.6, rng)}, "r")], permutations=99, device="cpu")
    ranked = calibrated(plain, 0.6, rng)
    windows = [window(0.6, rng, f"w{i}") for i in range(WINDOWS)]
    assert np.mean([(plain.test(w).p_value or 1.0) <= ALPHA for w in windows]) >= 0.8
    assert np.mean([ranked.test(w).rejected for w in windows]) <= 0.08


def test_the_level_given_one_small_reference() -> None:
    """A reference of twice a window's rows: the permutation level given it is anybody's guess, the rank's is not.

    Given K = 499 clean windows the level of a rank is Beta(25, 475): in [.025, .085] with probability .999; 300 add
    their own noise, so the bounds are the ends of 99 % bands around those.
    """
    rng = np.random.default_rng(12)
    plain = fit_reference([plain_frame({"fc": rng.standard_normal((300, D))}, "r")], permutations=99, device="cpu")
    ranked = calibrated(plain, 0.0, rng)
    rejected = np.mean([ranked.test(window(0.0, rng, f"w{i}")).rejected for i in range(WINDOWS)])
    assert band(WINDOWS, 0.025)[0] <= rejected <= band(WINDOWS, 0.085)[1]
