"""Mid-ranks within strata, and the one statistic a score becomes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from tests.support.oracle import score_statistic

from hydrophone.detectors.permutation import splits
from hydrophone.detectors.scalars import percentiles, scalar_statistics


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=40))
def test_percentiles_are_mid_ranks_within_strata(rows: list[tuple[int, int]]) -> None:
    scores, strata = (np.array(column) for column in zip(*rows, strict=True))
    found = percentiles(torch.from_numpy(scores[None].astype(np.float64)), torch.from_numpy(strata)).numpy()[0]
    for stratum in np.unique(strata):
        members = strata == stratum
        expected = (rankdata(scores[members]) - 0.5) / members.sum()
        np.testing.assert_allclose(found[members], expected, rtol=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_the_statistic_is_the_oracles(ties: bool) -> None:
    rng = np.random.default_rng(3)
    strata = np.sort(rng.integers(0, 2, 120))
    scores = rng.integers(0, 5, (2, 120)).astype(float) if ties else rng.standard_normal((2, 120))
    Z = splits(90, 30, 99, (1,))
    found = scalar_statistics(torch.from_numpy(scores), torch.from_numpy(strata), torch.from_numpy(Z)).statistics
    for score, statistic in zip(scores, found.numpy(), strict=True):
        np.testing.assert_allclose(statistic, score_statistic(score, strata, list(Z.T > 0.5)), atol=1e-6)


def test_a_score_that_never_varies_says_nothing() -> None:
    Z = torch.from_numpy(splits(50, 20, 99, (2,)))
    found = scalar_statistics(torch.ones(1, 70, dtype=torch.float64), torch.zeros(70, dtype=torch.int64), Z)
    assert found.statistics.abs().max() == 0


def test_rows_in_the_tail_account_for_the_statistic() -> None:
    scores = torch.zeros(1, 100, dtype=torch.float64)
    scores[0] = torch.arange(100)
    Z = torch.zeros(100, 50)
    Z[90:, 0] = 1  # the window is the top tenth
    rng = np.random.default_rng(0)
    for column in range(1, 50):
        Z[rng.permutation(100)[:10], column] = 1
    shares = scalar_statistics(scores, torch.zeros(100, dtype=torch.int64), Z).shares[0]
    assert shares[99] > shares[91] > shares[50]


def test_rounding_of_either_side_does_not_decide_a_rank() -> None:
    scores = torch.full((1, 60), 0.7, dtype=torch.float64)
    scores[0, 40:] *= 1 + 1e-13  # the window's sums were rounded another way
    Z = torch.from_numpy(splits(40, 20, 99, (5,)))
    found = scalar_statistics(scores, torch.zeros(60, dtype=torch.int64), Z)
    assert found.statistics.abs().max() == 0
