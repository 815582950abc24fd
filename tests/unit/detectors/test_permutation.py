"""Splits and what is counted over them."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from hydrophone.detectors.permutation import (
    TIE_TOLERANCE,
    JointNull,
    all_splits,
    e_value,
    p_values,
    splits,
    studentise,
)

# Splits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 2), (2, 30), (100, 7)])
def test_every_column_marks_as_many_rows_as_the_window_has(n: int, m: int) -> None:
    Z = splits(n, m, 200, (1, n, m))
    assert Z.shape == (n + m, 201)
    assert set(np.unique(Z)) <= {0.0, 1.0}
    assert (Z.sum(0) == m).all()


def test_the_observed_split_comes_first() -> None:
    assert splits(4, 3, 10, (0,))[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0)])
def test_with_one_side_empty_all_columns_agree(n: int, m: int) -> None:
    Z = splits(n, m, 5, (0,))
    assert Z.shape == (3, 6)
    assert (Z[:, :1] == Z).all()


def test_the_key_alone_decides_the_splits() -> None:
    np.testing.assert_array_equal(splits(9, 4, 50, (7, 1)), splits(9, 4, 50, (7, 1)))
    assert (splits(9, 4, 50, (7, 1)) != splits(9, 4, 50, (7, 2))).any()


def test_splits_are_uniform_at_99_percent_confidence() -> None:
    """All 20 ways to take 3 of 6 rows are equally likely: chi-squared over 8,000 draws."""
    Z = splits(3, 3, 8_000, (2024,))[:, 1:]
    drawn = [tuple(np.flatnonzero(column)) for column in Z.T]
    counts = [drawn.count(rows) for rows in itertools.combinations(range(6), 3)]
    assert sum(counts) == 8_000
    assert stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize(("n", "m"), [(2, 2), (4, 3), (1, 6)])
def test_all_splits_are_each_split_once_the_observed_first(n: int, m: int) -> None:
    Z = all_splits(n, m, math.comb(n + m, m))
    assert Z is not None
    columns = [tuple(np.flatnonzero(column)) for column in Z.T]
    assert columns[0] == tuple(range(n, n + m))
    assert sorted(columns) == sorted(itertools.combinations(range(n + m), m))


def test_too_many_splits_are_not_enumerated() -> None:
    assert all_splits(4, 3, math.comb(7, 3) - 1) is None
    assert all_splits(500, 500, 10_000) is None


# Studentised statistics ----------------------------------------------------------------------------------------------


def test_studentised_statistics_have_mean_zero_and_deviation_one_over_all_columns() -> None:
    U = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=(3, 50)))
    S = studentise(U, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(S.mean(1), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(S.std(1, correction=0), torch.ones(3, dtype=torch.float64))


def test_a_statistic_that_does_not_vary_ties_with_itself() -> None:
    noise = 1e-13 * torch.from_numpy(np.random.default_rng(0).standard_normal(20))
    U = torch.stack([torch.full((20,), 0.3, dtype=torch.float64), 0.3 + noise])
    S = studentise(U, torch.full((2,), 0.5, dtype=torch.float64))
    assert (S == 0).all()
    assert JointNull(S).p_value() == 1.0


# Counting ------------------------------------------------------------------------------------------------------------


def null_of(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_a_p_value_is_never_zero_and_at_most_one() -> None:
    assert float(p_values(null_of(9, 1, 2, 3), torch.tensor([9.0]))[0]) == 1 / 4
    assert float(p_values(null_of(0, 1, 2, 3), torch.tensor([0.0]))[0]) == 1.0


def test_ties_count_as_reached() -> None:
    assert float(p_values(null_of(2, 2, 2, 1), torch.tensor([2.0]))[0]) == 3 / 4


def test_what_rounding_parts_is_a_tie() -> None:
    nearly = 2 - 0.9 * TIE_TOLERANCE
    clearly = 2 - 4 * TIE_TOLERANCE
    assert float(p_values(null_of(2, nearly, clearly), torch.tensor([2.0]))[0]) == 2 / 3
    far = 1e6
    assert float(p_values(null_of(far, far - 0.5 * far * TIE_TOLERANCE), torch.tensor([far]))[0]) == 1.0


@pytest.mark.parametrize("permutations", [19, 99, 199, 999])
def test_the_p_value_of_the_last_rejecting_rank_is_the_level_itself(permutations: int) -> None:
    """In float32, 50 / 1000 is more than 0.05 and such a window would not reject."""
    columns = permutations + 1
    null = torch.arange(columns, 0, -1, dtype=torch.float64)[None]
    rank = columns // 20
    shuffled = torch.cat([null[:, rank - 1 : rank], null[:, : rank - 1], null[:, rank:]], dim=1)
    p = JointNull(shuffled).p_value()
    assert p == rank / columns
    assert p <= 0.05


def test_the_joint_p_value_is_that_of_the_maximum() -> None:
    S = torch.tensor([[1.0, 0.0, 3.0, 0.0], [2.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    joint = JointNull(S)
    assert joint.maxima.tolist() == [2.0, 0.0, 3.0, 1.0]
    assert joint.p_value() == 2 / 4


def test_an_adjusted_p_value_is_at_least_the_groups_own_and_the_leaders_is_the_joint_one() -> None:
    S = torch.from_numpy(np.random.default_rng(3).standard_normal((4, 100)))
    S[2, 0] = 2.0
    joint = JointNull(S)
    groups = [joint.group([i]) for i in range(4)]
    assert all(adjusted >= own for _, own, adjusted in groups)
    statistic, _, adjusted = groups[int(S[:, 0].argmax())]
    assert statistic == joint.maxima[0]
    assert adjusted == joint.p_value()


def test_e_values_average_to_one_over_the_columns() -> None:
    """Exactness: were any column the observed one, the mean over columns would still be 1."""
    maxima = torch.from_numpy(np.random.default_rng(0).standard_normal(40))
    values = [e_value(torch.cat([maxima[i : i + 1], maxima[:i], maxima[i + 1 :]])) for i in range(40)]
    assert np.mean(values) == pytest.approx(1.0)
