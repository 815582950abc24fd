"""The two sums over upper blocks are the two sums over the whole matrix, wherever a block ends."""

import numpy as np
import pytest
import torch
from tests.support.oracle import gaussian_kernel

from hydrophone.detectors.gram import BLOCK_ROWS, UpperGram, upper_distances, upper_kernels

BANDWIDTHS = (1.0, 3.0)
CENTRES = (0.2, 0.7)


def case(n: int) -> tuple[UpperGram, list[np.ndarray]]:
    """A Gram in blocks, and the same kernels whole, centred, of zero diagonal, in float64."""
    X = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32)
    blocks = [(at, upper_kernels(part, BANDWIDTHS, CENTRES)) for at, part in upper_distances(torch.from_numpy(X))]
    whole = [gaussian_kernel(X.astype(np.float64), h) - c for h, c in zip(BANDWIDTHS, CENTRES, strict=True)]
    for kernel in whole:
        np.fill_diagonal(kernel, 0.0)
    return UpperGram(n, len(BANDWIDTHS), lambda: iter(blocks)), whole


SIZES = [1, 2, 17, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 3]


@pytest.mark.parametrize("n", SIZES)
def test_the_quadratic_sum_is_that_of_the_whole_matrix(n: int) -> None:
    gram, whole = case(n)
    Z = (np.random.default_rng(1).random((n, 5)) < 0.4).astype(np.float32)
    expected = [[z @ kernel @ z for z in Z.T.astype(np.float64)] for kernel in whole]
    scale = np.abs(expected).max() + 1.0
    np.testing.assert_allclose(gram.quadratic(torch.from_numpy(Z)).numpy(), expected, atol=1e-5 * scale)


@pytest.mark.parametrize("n", SIZES)
def test_the_row_sums_are_those_of_the_whole_matrix(n: int) -> None:
    gram, whole = case(n)
    expected = [kernel.sum(1) for kernel in whole]
    np.testing.assert_allclose(gram.row_sums().numpy(), expected, atol=1e-6 * n + 1e-5)


def test_blocks_may_be_made_anew_each_time() -> None:
    gram, _ = case(40)
    calls = []

    def blocks() -> object:
        calls.append(1)
        return gram.blocks()

    lazy = UpperGram(gram.rows, gram.branches, blocks)  # type: ignore[arg-type]
    Z = torch.ones(40, 2)
    assert torch.equal(lazy.quadratic(Z), gram.quadratic(Z))
    assert torch.equal(lazy.quadratic(Z), gram.quadratic(Z))
    assert len(calls) == 2
