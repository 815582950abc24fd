"""A symmetric kernel matrix as upper blocks, and the two sums a permutation test needs of it. No split lives here.

With z a 0/1 column: q = zᵀKz and r = K1. K is symmetric with a zero diagonal, so its strict upper part holds
everything and half the multiplications are saved; no matrix larger than one block row is ever multiplied at once.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from hydrophone.detectors.bins import Bins
from hydrophone.detectors.kernels import gaussian, squared_distances

__all__ = ["BLOCK_ROWS", "UpperGram", "binned_gram", "upper_distances", "upper_kernels"]

BLOCK_ROWS: Final = 256
"""Measured: 128 to 512 rows cost the same; fewer lose GEMM speed, more save less of the lower half."""


@dataclass(frozen=True)
class UpperGram:
    """Upper triangles of G kernel matrices over the same n rows, strict ones but for bins, as blocks
    `[G, b, n - start]`.

    `blocks()` may compute them anew each time: what is too large to keep is recomputed, never spilled.
    """

    rows: int
    branches: int
    blocks: Callable[[], Iterator[tuple[int, Float[Tensor, "G b rest"]]]]

    def quadratic(self, Z: Float[Tensor, "n C"]) -> Float[Tensor, "G C"]:
        """q = zᵀKz for every column z of Z and every kernel."""
        q = torch.zeros(self.branches, Z.shape[1], device=Z.device)
        for start, block in self.blocks():
            stacked = block.reshape(-1, block.shape[2]) @ Z[start:]
            product = stacked.view(block.shape[0], block.shape[1], -1)
            q += product.mul_(Z[start : start + block.shape[1]]).sum(1)
        return q.mul_(2.0)

    def row_sums(self) -> Float[Tensor, "G n"]:
        """r = K1."""
        parts = [(start, block.sum(2), block.sum(1)) for start, block in self.blocks()]
        r = torch.zeros(self.branches, self.rows, device=parts[0][1].device)
        for start, across, down in parts:
            r[:, start : start + across.shape[1]] += across
            r[:, start:] += down
        return r


def binned_gram(
    rows: Float[Tensor, "n d"], bins: Bins, bandwidths: Sequence[float], centres: Sequence[float]
) -> UpperGram:
    """The kernels of the rows that are in bins, summed over pairs of bins; pairs of rows within a bin count too."""
    members = (bins.members if bins.take is None else bins.take[bins.members]).to(rows.device)
    units = members.shape[1]
    sums = torch.zeros(len(bandwidths), units, units, device=rows.device)
    for first, second in itertools.combinations_with_replacement(range(bins.size), 2):
        squared = squared_distances(rows[members[first]], rows[members[second]])
        for total, h, centre in zip(sums, bandwidths, centres, strict=True):
            kernel = gaussian(squared, h).sub_(centre)
            total.add_(kernel.fill_diagonal_(0.0) if first == second else kernel + kernel.T)
    sums.diagonal(dim1=1, dim2=2).mul_(0.5)  # `quadratic` counts what it finds twice
    starts = range(0, units, BLOCK_ROWS)
    blocks = [(at, sums[:, at : at + BLOCK_ROWS, at:].triu().contiguous()) for at in starts]
    return UpperGram(units, len(bandwidths), lambda: iter(blocks))


def upper_distances(X: Float[Tensor, "n d"]) -> Iterator[tuple[int, Float[Tensor, "b rest"]]]:
    """Squared distances of rows `start..start+b` to rows `start..n`."""
    for start in range(0, X.shape[0], BLOCK_ROWS):
        yield start, squared_distances(X[start : start + BLOCK_ROWS], X[start:])


def upper_kernels(
    squared: Float[Tensor, "b rest"], bandwidths: Sequence[float], centres: Sequence[float]
) -> Float[Tensor, "G b rest"]:
    """Kernel values less `centre`, with everything on and below the diagonal zero.

    MMD² does not change when a constant is taken off every off-diagonal value; float32 sums of values near zero keep
    more digits than sums of values near one.
    """
    kernels = [gaussian(squared, h).sub_(c) for h, c in zip(bandwidths, centres, strict=True)]
    return torch.stack(kernels).triu_(diagonal=1)
