"""Permutations as 0/1 columns, and what is counted over them: p-values, studentised maxima. No kernel lives here.

A column z of Z marks the rows that play the window. Column 0 is the observed split (reference rows first, window rows
last); the other B are uniform splits of the same sizes, within strata where there are any. The observed statistic is
one more column of the same product, so it meets the same rounding as its null (as in Biggs, Schrab & Gretton, MMD-FUSE,
arXiv 2306.08777).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["JointNull", "all_splits", "e_value", "p_values", "splits", "studentise"]

TIE_TOLERANCE: Final = 5e-4
"""Studentised statistics closer than this are ties. Measured: float32 errs by up to 2e-4 (n = 1000, m = 300, D = 512);
the tolerance adds less than 1e-4 to a p-value near 0.05."""

DEGENERATE: Final = 1e-10
"""A null narrower than this share of its own magnitude is rounding, not variation."""


def splits(n: int, m: int, permutations: int, key: Sequence[int]) -> NDArray[np.float32]:
    """Z `[n + m, permutations + 1]`: the observed split and uniform ones, fixed by `key` on every machine (Philox)."""
    if m == 0 or n == 0:
        return np.repeat(np.r_[np.zeros(n), np.ones(m)].astype(np.float32)[:, None], permutations + 1, axis=1)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))
    draws = generator.random((permutations, n + m))
    cut = np.partition(draws, m - 1, axis=1)[:, m - 1]
    Z = np.empty((n + m, permutations + 1), np.float32)
    Z[:, 0] = np.r_[np.zeros(n), np.ones(m)]
    Z[:, 1:] = (draws <= cut[:, None]).T
    return Z


def all_splits(n: int, m: int, most: int) -> NDArray[np.float32] | None:
    """Every split of n + m rows, the observed one first, when there are at most `most`; then the test is exact."""
    if math.comb(n + m, m) > most:
        return None
    observed = tuple(range(n, n + m))
    chosen = [observed, *(rows for rows in itertools.combinations(range(n + m), m) if rows != observed)]
    Z = np.zeros((n + m, len(chosen)), np.float32)
    for column, rows in enumerate(chosen):
        Z[list(rows), column] = 1.0
    return Z


def studentise(U: Float[Tensor, "G C"], magnitude: Float[Tensor, " G"]) -> Float[Tensor, "G C"]:
    """Each statistic less its mean over all columns, over its deviation; the observed column counts like any other.

    Exact: mean and deviation are symmetric functions of the columns. A statistic that does not vary beyond rounding of
    its `magnitude` says nothing: it is 0 in every column, so that it ties with itself.
    """
    centred = U - U.mean(1, keepdim=True)
    deviation = centred.square().mean(1, keepdim=True).sqrt()
    informative = deviation > DEGENERATE * magnitude[:, None]
    return torch.where(informative, centred / deviation.clamp(min=1e-300), 0.0)


def p_values(null: Float[Tensor, "G C"], observed: Float[Tensor, " G"]) -> Float[Tensor, " G"]:
    """(1 + #{null >= observed}) / (B + 1), never 0; column 0 of `null` is the observed split and is the 1.

    Phipson & Smyth, arXiv 1603.05766, equation 2. Ties count as greater.
    """
    slack = TIE_TOLERANCE * observed.abs().clamp(min=1.0)
    reached = (null[:, 1:] >= (observed - slack)[:, None]).sum(1)
    return (1 + reached).double() / null.shape[1]  # in float32, 50 / 1000 would exceed a level of 0.05


def e_value(maxima: Float[Tensor, " C"]) -> float:
    """(B + 1) exp(M_0) / Σ_b exp(M_b): an exact e-value for any positive h, here exp (Koning, arXiv 2310.01153)."""
    return float(maxima.shape[0] * torch.softmax(maxima, 0)[0])


@dataclass(frozen=True)
class JointNull:
    """Studentised statistics of every branch under the same permutations, `[G, C]`, and their maxima."""

    statistics: Float[Tensor, "G C"]

    @property
    def maxima(self) -> Float[Tensor, " C"]:
        return self.statistics.amax(0)

    def p_value(self) -> float:
        """Of the largest statistic of all."""
        return float(p_values(self.maxima[None], self.maxima[:1])[0])

    def group(self, branches: Sequence[int]) -> tuple[float, float, float]:
        """Of some branches together: the largest statistic, its own p-value, and its p-value adjusted for all branches.

        The adjustment is single-step maxT (Westfall & Young 1993): the null of the largest of *all* branches.
        """
        own = self.statistics[list(branches)].amax(0)
        own_p = p_values(own[None], own[:1])
        adjusted = p_values(self.maxima[None], own[:1])
        return float(own[0]), float(own_p[0]), float(adjusted[0])
