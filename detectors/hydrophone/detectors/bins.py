"""Rows in bins: what changes sides together, and how large a bin is. No kernel and no split lives here.

Moving bins of b rows instead of single rows keeps a permutation test exact and divides its cost by b² (Domingo-Enrich,
Dwivedi & Mackey, arXiv 2301.05974 and 2502.07672): the kernel matrix is needed only as sums over pairs of bins. A bin
lies wholly on one side and within one stratum. Rows that fill no bin stay on their own side in every split: those
splits are a subgroup of all, so the test stays exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Bins", "bin_rows", "block_order", "reference_bins"]

SINGLE_ROWS: Final = 2_000
"""Reference rows up to which single rows change sides."""

MOST_BINS: Final = 1_000
"""Reference bins that change sides, for a larger reference; a window's cost grows with their square."""

ENOUGH_BINS: Final = 40
"""Window bins, of all strata together, that have the power of single rows."""

MOST_LEFT: Final = 0.1
"""Share of a window's rows that may fill no bin."""

SIZES: Final = (32, 16, 8, 4, 2)
"""Few, because each size has sums of the reference's kernels of its own."""


def bin_rows(reference: Sequence[int], window: Sequence[int]) -> int:
    """Rows a bin, from the rows per stratum of both sides: the most that leave the window enough bins and few rows
    over. 1 for a reference of at most `SINGLE_ROWS` (docs/decisions/0013-rows-move-in-bins.md)."""
    if sum(reference) <= SINGLE_ROWS:
        return 1
    counts = [m for n, m in zip(reference, window, strict=True) if n and m]
    for size in SIZES:
        bins = sum(m // size for m in counts)
        if bins >= ENOUGH_BINS and sum(m % size for m in counts) <= MOST_LEFT * sum(counts):
            return size
    return 1


def block_order(rows: int, size: int) -> NDArray[np.intp]:
    """Rows in time order so rearranged that a bin (see `Bins`) is `size` rows in a row."""
    whole = rows - rows % size
    in_bins = np.arange(whole).reshape(-1, size).T.ravel()
    return np.concatenate([in_bins, np.arange(whole, rows)])


@dataclass(frozen=True)
class Bins:
    """One side's rows, stratum after stratum. Of a stratum's rows the first `size · bins` are in bins, row i in the bin
    i mod `bins`; the others are one unit that never changes sides. Units stand in the order of their strata, bins
    first.

    `take` brings rows that stand in another order into this one.
    """

    size: int
    counts: tuple[int, ...]
    bins: tuple[int, ...]
    take: Int[Tensor, " rows"] | None = None

    @classmethod
    def of(cls, counts: Sequence[int], size: int, *, most: int | None = None) -> "Bins":
        """All that fit; at most (about) `most` in all, each stratum its share."""
        full = [rows // size for rows in counts]
        if most is not None and sum(full) > most:
            full = [-(-bins * most // sum(full)) for bins in full]
        return cls(size, tuple(counts), tuple(full))

    @cached_property
    def are_single(self) -> bool:
        """Units are rows."""
        return self.size == 1 and self.bins == self.counts and self.take is None

    @property
    def left(self) -> tuple[int, ...]:
        """Rows of each stratum that change sides in no split."""
        return tuple(rows - self.size * bins for rows, bins in zip(self.counts, self.bins, strict=True))

    def stratum(self, index: int) -> "Bins":
        """Of one stratum's rows alone."""
        return Bins(self.size, self.counts[index : index + 1], self.bins[index : index + 1])

    @cached_property
    def unit_of_row(self) -> Int[Tensor, " rows"]:
        """Which unit each row is in, rows in the order of the strata."""
        parts, units = [torch.empty(0, dtype=torch.int64)], 0
        for bins, left in zip(self.bins, self.left, strict=True):
            parts += [units + torch.arange(bins).repeat(self.size), torch.full((left,), units + bins)]
            units += bins + (left > 0)
        return torch.cat(parts)

    def sums(self, values: Float[Tensor, "*some rows"]) -> Float[Tensor, "*some units"]:
        """Sums over the rows of each unit, along the last axis."""
        if self.are_single:
            return values
        if self.take is not None:
            values = values.index_select(-1, self.take)
        parts, start = [], 0
        for rows, bins, left in zip(self.counts, self.bins, self.left, strict=True):
            end = start + rows
            if bins:
                parts.append(values[..., start : end - left].reshape(*values.shape[:-1], self.size, bins).sum(-2))
            if left:
                parts.append(values[..., end - left : end].sum(-1, keepdim=True))
            start = end
        return torch.cat(parts, -1)

    @cached_property
    def members(self) -> Int[Tensor, "size bins"]:
        """The rows of each bin."""
        starts = np.cumsum((0, *self.counts)).tolist()
        parts = [
            start + torch.arange(self.size * bins).view(self.size, bins)
            for start, bins in zip(starts, self.bins, strict=False)
        ]
        return torch.cat(parts, 1)

    @cached_property
    def moving(self) -> Int[Tensor, " bins"]:
        """Which units are bins."""
        parts, units = [torch.empty(0, dtype=torch.int64)], 0
        for bins, left in zip(self.bins, self.left, strict=True):
            parts.append(units + torch.arange(bins))
            units += bins + (left > 0)
        return torch.cat(parts)


def reference_bins(counts: Sequence[int], size: int) -> Bins:
    """Of a reference's rows: no more than are affordable."""
    return Bins.of(counts, size, most=None if sum(counts) <= SINGLE_ROWS else MOST_BINS)
