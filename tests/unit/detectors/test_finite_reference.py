"""What is allowed for one reference of few rows: never more than alpha, all of it where the reference is large."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.support.frames import gaussian_frame

from hydrophone.detectors import fit_reference
from hydrophone.detectors.finite_reference import TOLERATED, level_in_force, shared_variance

ALPHAS = st.floats(0.001, 0.4)
ROWS = st.integers(1, 5_000)


@given(ALPHAS, ROWS, ROWS)
def test_a_level_in_force_is_at_most_alpha_and_alpha_for_a_large_reference(
    alpha: float, tested: int, rows: int
) -> None:
    level = level_in_force(alpha, tested=tested, reference_rows=rows)
    assert 0 < level <= alpha
    assert level_in_force(alpha, tested=tested, reference_rows=16 * tested) == alpha


def test_a_larger_reference_is_allowed_more() -> None:
    levels = [level_in_force(0.05, tested=100, reference_rows=rows) for rows in (200, 400, 800, 1_599, 1_600)]
    assert levels == sorted(levels)
    assert levels[-2] < levels[-1] == 0.05


@pytest.mark.parametrize(("alpha", "tested", "rows"), [(0.05, 500, 2_000), (0.01, 500, 2_000), (0.05, 100, 400)])
def test_the_unlucky_reference_rejects_no_more_than_tolerated(alpha: float, tested: int, rows: int) -> None:
    """By simulation of the model: of 100,000 references 95 % reject at most 1.5 · alpha of their clean windows."""
    shared = shared_variance("permutation", tested=tested, reference_rows=rows)
    delta = np.random.default_rng(0).standard_normal(100_000) * np.sqrt(shared)
    cut = stats.norm.isf(level_in_force(alpha, tested=tested, reference_rows=rows))
    rates = stats.norm.sf((cut - delta) / np.sqrt(1 - shared))
    assert np.quantile(rates, 0.95) == pytest.approx(TOLERATED * alpha, rel=0.02)


def test_a_result_says_which_level_is_in_force() -> None:
    fitted = fit_reference([gaussian_frame(300, 1)], permutations=99, device="cpu")
    small, large = (
        fitted.test(gaussian_frame(50, 2)),
        fit_reference([gaussian_frame(600, 1)], device="cpu").test(gaussian_frame(25, 2)),
    )
    assert small.alpha < small.nominal_alpha == 0.05
    assert small.rejected == (small.p_value is not None and small.p_value <= small.alpha)
    assert large.alpha == large.nominal_alpha == 0.05
