"""Kernels against their definitions in float64."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from tests.support.oracle import gaussian_kernel

from hydrophone.detectors.kernels import MEDIAN_ROWS, gaussian, median_distance, median_of, squared_distances


def rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32))


def test_squared_distances_are_those_of_the_definition() -> None:
    X, Y = rows(7, 5, 1), rows(4, 5, 2)
    expected = ((X.double()[:, None] - Y.double()[None]) ** 2).sum(2)
    torch.testing.assert_close(squared_distances(X, Y).double(), expected, rtol=1e-5, atol=1e-5)


def test_distances_are_never_negative_though_the_expansion_cancels() -> None:
    X = 1e3 + 1e-3 * rows(50, 64)
    assert float(squared_distances(X, X).min()) >= 0.0


def test_the_gaussian_kernel_is_that_of_the_definition() -> None:
    X = rows(9, 3)
    fast = gaussian(squared_distances(X, X), 1.7).double().numpy()
    np.testing.assert_allclose(fast, gaussian_kernel(X.double().numpy(), 1.7), atol=1e-6)


def test_kernels_do_not_write_into_their_arguments() -> None:
    X = rows(5, 3)
    squared = squared_distances(X, X)
    before = X.clone(), squared.clone()
    gaussian(squared, 0.5)
    median_distance(X)
    assert torch.equal(X, before[0])
    assert torch.equal(squared, before[1])


@pytest.mark.parametrize("n", [2, 3, 10, 11])
def test_the_median_distance_is_the_lower_median_of_all_pairs(n: int) -> None:
    X = rows(n, 4)
    exact = np.linalg.norm(X.numpy()[:, None].astype(np.float64) - X.numpy()[None], axis=2)
    pairs = np.sort(exact[np.triu_indices(n, 1)])
    assert median_distance(X) == pytest.approx(pairs[(len(pairs) - 1) // 2], rel=1e-5)


def test_the_median_of_many_rows_is_taken_over_some_of_them() -> None:
    X = rows(MEDIAN_ROWS + 5, 2)
    some = X[::2]
    assert median_distance(X) == pytest.approx(median_distance(some))


def test_shapes_are_checked_while_testing() -> None:
    """By the import hook that pytest is configured with; torch itself would complain in other words, or broadcast."""
    with pytest.raises(TypeCheckError):
        squared_distances(rows(5, 3), rows(5, 4))
    with pytest.raises(TypeCheckError):
        median_of(rows(5, 3))


def test_rows_that_coincide_have_a_median_of_one() -> None:
    assert median_distance(torch.ones(5, 3)) == 1.0
    assert median_distance(torch.ones(1, 3)) == 1.0
    assert median_of(torch.empty(0)) == 1.0
    assert median_of(torch.tensor([4.0, 9.0, 16.0])) == pytest.approx(math.sqrt(9.0))
