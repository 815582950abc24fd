"""The mix of classes against an exact enumeration and the textbook, and that a window's score carries it."""

from math import comb

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from tests.support.frames import class_frame, gaussian_frame

from hydrophone.detectors import fit_reference
from hydrophone.detectors.prior_shift import DRAWS, chi_square, prior_shift
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Frame


def exact(reference: tuple[int, int], window: tuple[int, int]) -> float:
    """Two classes: the null is hypergeometric, so every table can be counted (Fisher's test, by chi-square)."""
    a, b = (x + y for x, y in zip(reference, window, strict=True))
    m = sum(window)

    def statistic(k: int) -> float:
        expected = a * m / (a + b)
        return (k - expected) ** 2

    tables = range(max(0, m - b), min(a, m) + 1)
    reached = [k for k in tables if statistic(k) >= statistic(window[0]) - 1e-9]
    return sum(comb(a, k) * comb(b, m - k) for k in reached) / comb(a + b, m)


@pytest.mark.parametrize(
    ("reference", "window"), [((60, 40), (12, 8)), ((60, 40), (17, 8)), ((95, 5), (18, 2)), ((50, 50), (10, 25))]
)
def test_two_classes_get_the_p_value_of_all_tables(reference: tuple[int, int], window: tuple[int, int]) -> None:
    p = exact(reference, window)
    found = prior_shift(("a", "b"), reference, window, seed=3).p_value
    assert found == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / DRAWS) + 1 / DRAWS)


def test_the_statistic_is_pearsons() -> None:
    reference, window = np.array([300, 200, 90, 10]), np.array([30, 40, 20, 5])
    expected = chi2_contingency(np.stack([reference, window]), correction=False).statistic
    assert chi_square(window[None], reference + window)[0] == pytest.approx(expected)


def test_the_same_mix_is_no_shift_and_another_is() -> None:
    same = prior_shift(("a", "b"), (600, 400), (60, 40), seed=0)
    assert (same.p_value, same.statistic) == (1.0, pytest.approx(0.0))
    assert prior_shift(("a", "b"), (600, 400), (20, 80), seed=0).p_value == 1 / (DRAWS + 1)


def test_the_seed_decides() -> None:
    one, again, other = (prior_shift(("a", "b"), (600, 400), (50, 50), seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.p_value != other.p_value


def test_shares_name_every_class_seen_on_either_side() -> None:
    shift = prior_shift(("0", "1", "5", "other"), (75, 25, 0, 0), (5, 0, 15, 0), seed=0)
    assert shift.shares == {"0": (0.25, 0.75), "1": (0.0, 0.25), "5": (0.75, 0.0)}


def test_a_window_carries_its_mix_of_distinct_rows() -> None:
    def mixed(rows: int, seed: int, *shares: float) -> Frame:
        return class_frame(rows, seed, shares=shares)

    reference = fit_reference([mixed(900, 1, 0.9, 0.1)], permutations=99, device="cpu")
    usual = reference.test(mixed(100, 2, 0.9, 0.1))
    assert usual.prior_shift is not None
    assert usual.prior_shift.p_value > 0.05
    moved = reference.test(mixed(100, 3, 0.5, 0.5))
    assert moved.prior_shift is not None
    assert moved.prior_shift.p_value < 0.001
    assert moved.prior_shift.shares["1"][0] == pytest.approx(0.5, abs=0.15)
    assert moved.prior_shift.shares["1"][1] == pytest.approx(0.1, abs=0.03)
    score = moved.to_score(window=WindowBounds(start_ms=0, end_ms=1))
    assert score.prior_shift == moved.prior_shift

    repeated = mixed(100, 2, 0.9, 0.1)
    rare = int(np.flatnonzero(repeated.predicted == 1)[0])
    swollen = reference.test(repeated.take(np.r_[np.arange(100), np.full(200, rare)]))
    assert swollen.prior_shift is not None
    assert swollen.prior_shift.shares == usual.prior_shift.shares


def test_without_classes_there_is_no_mix() -> None:
    reference = fit_reference([gaussian_frame(90, 1)], permutations=99, device="cpu")
    assert reference.test(gaussian_frame(40, 2)).prior_shift is None
