"""Evidence over time is an e-detector: a mean of at most 1 a window on clean traffic, finite whatever comes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from hydrophone.detectors.finite_reference import UNLUCKY, shared_variance
from hydrophone.detectors.sequential import (
    NO_EVIDENCE,
    SHIFTS,
    accumulate,
    evidence_over_time,
)

P_VALUES = st.floats(0, 1)
SHARED = st.floats(0, 0.9)


def e_values(p_value: float, *, shared: float = 0.0) -> tuple[float, ...]:
    """One window after no evidence: (0 + 1) · E."""
    return accumulate(NO_EVIDENCE, p_value, shared=shared)


@pytest.mark.parametrize("permutations", [19, 99, 199, 999, 9_999])
def test_e_values_of_a_uniform_p_value_have_mean_at_most_one(permutations: int) -> None:
    steps = permutations + 1
    columns = zip(*(e_values(j / steps) for j in range(1, steps + 1)), strict=True)
    assert all(math.fsum(column) / steps <= 1 for column in columns)


def mean_e_values(luck: float, *, shared: float, assumed: float) -> list[float]:
    """Integrated over the stated model: z ~ N(luck · sqrt(shared), 1 − shared)."""
    z = np.linspace(-8, 12, 2_001)
    density = stats.norm.pdf(z, luck * math.sqrt(shared), math.sqrt(1 - shared))
    columns = np.array([e_values(p_value, shared=assumed) for p_value in stats.norm.sf(z).tolist()])
    return integrate.trapezoid(columns * density[:, None], z, axis=0).tolist()


@pytest.mark.parametrize("shared", [0.03, 0.1, 0.25])
@pytest.mark.parametrize("luck", [-2.0, 0.0, 1.0, UNLUCKY])
def test_given_any_reference_but_the_unluckiest_the_mean_is_at_most_one(shared: float, luck: float) -> None:
    means = mean_e_values(luck, shared=shared, assumed=shared)
    assert max(means) <= 1 + 1e-6
    assert luck != UNLUCKY or means == pytest.approx([1] * 4, abs=1e-3), "no more is taken than must be"


def test_given_an_unlucky_reference_the_mean_is_above_one_without_correction() -> None:
    assert mean_e_values(UNLUCKY, shared=0.1, assumed=0.0)[1] > 1.3


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=12), SHARED)
def test_recursion_is_the_sum_over_every_start_of_the_product_since(p_values: list[float], shared: float) -> None:
    M = NO_EVIDENCE
    for p_value in p_values:
        M = accumulate(M, p_value, shared=shared)

    each = [e_values(p_value, shared=shared) for p_value in p_values]
    for index in range(len(SHIFTS)):
        sums = math.fsum(math.prod(e[index] for e in each[start:]) for start in range(len(each)))
        assert M[index] == pytest.approx(sums, rel=1e-9)
    assert evidence_over_time(M) == pytest.approx(math.fsum(M) / len(M))


@given(st.lists(st.sampled_from([0.0, 5e-324, 1e-300, 1e-17, 1.0 - 2**-53, 1.0]), max_size=40), SHARED)
def test_evidence_stays_finite_at_the_ends_of_the_range(p_values: list[float], shared: float) -> None:
    M = NO_EVIDENCE
    for p_value in p_values:
        M = accumulate(M, p_value, shared=shared)
        assert all(0 <= value < math.inf for value in M)
        assert evidence_over_time(M) < math.inf


@given(P_VALUES, P_VALUES, SHARED)
def test_smaller_p_value_is_more_evidence(one: float, other: float, shared: float) -> None:
    low, high = sorted((one, other))
    assert all(a >= b for a, b in zip(e_values(low, shared=shared), e_values(high, shared=shared), strict=True))


@pytest.mark.parametrize("p_value", [0.02, 0.05, 0.2, 0.5])
def test_correction_takes_evidence_from_moderate_p_values(p_value: float) -> None:
    total = [evidence_over_time(e_values(p_value, shared=shared)) for shared in (0.0, 0.03, 0.1, 0.25)]
    assert total == sorted(total, reverse=True)
    assert total[-1] < total[0]


def test_memory_of_another_length_is_no_memory() -> None:
    assert accumulate((5.0,), 0.01, shared=0.0) == accumulate((), 0.01, shared=0.0) == e_values(0.01)
    assert evidence_over_time(()) == 0


@given(st.integers(0, 10_000), st.integers(1, 100_000), st.integers(0, 100_000))
def test_larger_reference_shares_less_and_never_everything(tested: int, rows: int, more: int) -> None:
    of = [shared_variance("stratified", tested=tested, reference_rows=n) for n in (rows, rows + more)]
    assert 0 <= of[1] <= of[0] < 1


def test_ranks_among_clean_windows_share_those_windows_alone() -> None:
    shared = {shared_variance("windows", tested=m, reference_rows=n) for m, n in ((20, 100), (500, 8_000))}
    assert len(shared) == 1
    assert 0 < shared.pop() < 0.02
