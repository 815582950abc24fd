"""The plain two-sample test against the oracle, and against looking at every split."""

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.oracle import gaussian_kernel, p_value, studentised, unbiased_mmd2

from hydrophone.detectors.two_sample import _splits, mmd_permutation_test
from hydrophone.schemas.errors import ConfigurationError


def samples(n: int, m: int, d: int, *, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, m, d, seed])
    return rng.standard_normal((n, d)), rng.standard_normal((m, d)) + shift


@pytest.mark.parametrize(
    ("n", "m", "d", "shift"),
    [(30, 20, 3, 0.0), (60, 15, 40, 0.3), (25, 50, 1, -0.4), (300, 40, 8, 0.1), (20, 20, 200, 0.0)],
)
@pytest.mark.parametrize("factors", [(1.0,), (0.5, 1.0, 2.0)])
def test_statistic_null_and_p_value_are_the_oracles(
    n: int, m: int, d: int, shift: float, factors: tuple[float, ...]
) -> None:
    X, Y = samples(n, m, d, shift=shift)
    result = mmd_permutation_test(X, Y, permutations=199, seed=3, device="cpu", bandwidth_factors=factors)
    Z = _splits(n, m, 199, 3, torch.device("cpu")).numpy()
    pooled = np.concatenate([X, Y]).astype(np.float32).astype(np.float64)
    kernels = [gaussian_kernel(pooled, bandwidth) for bandwidth in result.bandwidths]
    values = np.array([[unbiased_mmd2(kernel, z > 0.5) for z in Z.T] for kernel in kernels])
    joint = values[0] if len(factors) == 1 else np.max([studentised(value) for value in values], axis=0)
    assert (result.n, result.m, result.permutations) == (n, m, 199)
    assert result.statistic == pytest.approx(joint[0], abs=1e-5)
    np.testing.assert_allclose(result.null, joint[1:], atol=2e-4 if len(factors) > 1 else 1e-6)
    assert result.p_value == pytest.approx(p_value(joint[0], joint[1:]), abs=1 / 200 + 1e-12)


def test_the_bandwidth_is_the_pooled_median_distance() -> None:
    X, Y = samples(15, 10, 4)
    pooled = np.concatenate([X, Y])
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(pooled, 2)]
    result = mmd_permutation_test(X, Y, device="cpu", bandwidth_factors=(1.0, 2.0))
    middle = np.sort(pairs)[(len(pairs) - 1) // 2]
    assert result.bandwidths == pytest.approx((middle, 2 * middle), rel=1e-5)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 2), (4, 4), (5, 3)])
def test_few_rows_are_tested_exactly_over_all_splits(n: int, m: int) -> None:
    X, Y = samples(n, m, 2, shift=1.0)
    result = mmd_permutation_test(X, Y, permutations=999, device="cpu")
    kernel = gaussian_kernel(np.concatenate([X, Y]).astype(np.float32).astype(np.float64), result.bandwidths[0])
    every = []
    for rows in itertools.combinations(range(n + m), m):
        z = np.zeros(n + m, bool)
        z[list(rows)] = True
        every.append(unbiased_mmd2(kernel, z))
    observed = unbiased_mmd2(kernel, np.arange(n + m) >= n)
    assert result.permutations == math.comb(n + m, m) - 1
    assert result.p_value == pytest.approx(np.mean(np.array(every) >= observed - 1e-9), abs=1e-12)
    np.testing.assert_allclose(np.sort([result.statistic, *result.null]), np.sort(every), atol=1e-6)


@pytest.mark.parametrize("d", [1, 3, 20])
def test_ties_of_discrete_data_are_all_counted(d: int) -> None:
    """Rows of zeros and ones coincide, so many splits have the very same statistic."""
    rng = np.random.default_rng(d)
    X, Y = (rng.random((40, d)) < 0.3).astype(np.float32), (rng.random((25, d)) < 0.3).astype(np.float32)
    result = mmd_permutation_test(X, Y, permutations=199, seed=1, device="cpu")
    Z = _splits(40, 25, 199, 1, torch.device("cpu")).numpy()
    kernel = gaussian_kernel(np.concatenate([X, Y]).astype(np.float64), result.bandwidths[0])
    values = np.array([unbiased_mmd2(kernel, z > 0.5) for z in Z.T])
    assert result.p_value == pytest.approx(p_value(values[0], values[1:]), abs=1 / 200 + 1e-12)
    if d == 1:
        assert len(np.unique(values.round(9))) < 50


@pytest.mark.parametrize("value", [0.0, 0.1, 5.3, -1e8])
@pytest.mark.parametrize("d", [1, 3, 512])
def test_rows_that_all_coincide_show_no_difference(value: float, d: int) -> None:
    result = mmd_permutation_test(np.full((30, d), value), np.full((25, d), value), permutations=99, device="cpu")
    assert result.p_value == 1.0
    assert result.statistic == 0.0


@pytest.mark.parametrize(("n", "m"), [(0, 5), (1, 5), (5, 1), (1, 1)])
def test_fewer_than_two_rows_are_not_tested(n: int, m: int) -> None:
    result = mmd_permutation_test(np.zeros((n, 3)), np.zeros((m, 3)), device="cpu")
    assert result.p_value is None
    assert result.statistic is None
    assert (result.permutations, result.n, result.m) == (0, n, m)


def test_a_clear_difference_has_the_smallest_p_value() -> None:
    X, Y = samples(50, 50, 5, shift=3.0)
    assert mmd_permutation_test(X, Y, permutations=99, device="cpu").p_value == 1 / 100


def test_the_seed_decides_the_splits_and_nothing_else_does() -> None:
    X, Y = samples(30, 30, 3)
    one, again, other = (mmd_permutation_test(X, Y, seed=seed, device="cpu") for seed in (1, 1, 2))
    assert one.p_value == again.p_value
    np.testing.assert_array_equal(one.null, again.null)
    assert one.statistic == other.statistic
    assert (one.null != other.null).any()


@pytest.mark.parametrize("kind", ["numpy64", "numpy32", "torch"])
def test_the_callers_arrays_are_left_alone(kind: str) -> None:
    X, Y = samples(20, 20, 3)
    arrays: list[Any] = [X, Y]
    if kind != "numpy64":
        arrays = [X.astype(np.float32), Y.astype(np.float32)]
    if kind == "torch":
        arrays = [torch.from_numpy(array) for array in arrays]
    before = [copy.deepcopy(array) for array in arrays]
    mmd_permutation_test(*arrays, permutations=19, device="cpu")
    for array, kept in zip(arrays, before, strict=True):
        assert (array == kept).all()


def test_read_only_arrays_and_lists_are_welcome() -> None:
    X, Y = samples(20, 20, 3)
    frozen = X.astype(np.float32)
    frozen.flags.writeable = False
    assert mmd_permutation_test(frozen, Y.tolist(), permutations=19, device="cpu").p_value is not None


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("permutations", {"permutations": 0}),
        ("seed", {"seed": -1}),
        ("bandwidth_factors", {"bandwidth_factors": ()}),
        ("bandwidth_factors", {"bandwidth_factors": (1.0, 0.0)}),
        ("bandwidth_factors", {"bandwidth_factors": (math.nan,)}),
        ("device", {"device": "abacus"}),
        ("X", {"X": np.zeros(5)}),
        ("Y", {"Y": np.zeros((5, 3, 1))}),
        ("X", {"X": np.array([[1.0, np.nan, 0.0], [0.0, 0.0, 0.0]])}),
        ("Y", {"Y": np.array([[1.0, np.inf, 0.0], [0.0, 0.0, 0.0]])}),
        ("Y", {"Y": np.full((5, 3), 1e30)}),
        ("columns", {"Y": np.zeros((5, 4))}),
    ],
)
def test_what_cannot_be_tested_is_named(named: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"`{named}`|{named}"):
        mmd_permutation_test(**({"X": np.zeros((5, 3)), "Y": np.zeros((5, 3)), "device": "cpu"} | arguments))
