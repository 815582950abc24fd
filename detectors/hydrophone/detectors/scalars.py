"""Statistics of one number per row: rank sums and tail counts, linear in a split, so that they share its product.

A rank sum sees a small shift of many rows, a tail count a large shift of few. Both are computed within strata on the
pooled rows: a symmetric function of the two sides, so that their permutation null is exact without any threshold taken
from a calibration sample (a calibrated threshold's own error alarmed on 28 % of clean windows of 500).
"""

from collections.abc import Callable
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrophone.detectors.permutation import studentise

__all__ = ["TAILS", "ScalarStatistics", "percentiles", "scalar_statistics", "snapped"]

TAILS: Final = (0.01, 0.03, 0.10)
"""Shares of a stratum's pooled rows that count as its tail."""

SNAP: Final = 2.0**36


class ScalarStatistics:
    """One studentised statistic a score, `[Q, C]`, and how much each row adds to the observed one, `[Q, N]`."""

    def __init__(self, statistics: Float[Tensor, "Q C"], shares: Float[Tensor, "Q N"]) -> None:
        self.statistics, self.shares = statistics, shares


def scalar_statistics(
    scores: Float[Tensor, "Q N"],
    strata: Int[Tensor, " N"],
    Z: Float[Tensor, "units C"],
    sums: Callable[[Tensor], Tensor] = torch.clone,
) -> ScalarStatistics:
    """Large scores are suspicious. A score's rank sum and tail counts, each studentised over the columns of Z, are
    joined as the sum of the squares of their positive parts, and that is studentised again: symmetric in the columns
    all the way, hence exact. Measured on images, joining beat the largest of the parts (docs/detection.md).

    `sums` adds up, along the last axis, the rows of each unit of Z."""
    weights = _weights(percentiles(snapped(scores), strata))
    Q, F, N = weights.shape
    # In float64: counts are whole numbers, and their ties must stay ties.
    T = sums(weights.view(Q * F, N).double()) @ Z.double()
    parts = studentise(T, torch.ones(Q * F, dtype=torch.float64, device=T.device)).view(Q, F, -1)
    joined = parts.clamp(min=0.0).square().sum(1)
    statistics = studentise(joined, torch.ones(Q, dtype=torch.float64, device=T.device))
    pull = parts[:, :, 0].clamp(min=0.0) / T.view(Q, F, -1).std(2, correction=0).clamp(min=1e-9)
    shares = (weights.double() * pull[:, :, None]).sum(1) / joined.std(1, correction=0).clamp(min=1e-9)[:, None]
    return ScalarStatistics(statistics, shares.float())


def snapped(scores: Float[Tensor, "Q N"]) -> Float[Tensor, "Q N"]:
    """Float64 scores to 36 binary digits. The two sides pass through products of different shapes, which round
    differently: equal rows must stay equal, or rounding would rank all of one side above the other."""
    mantissa, exponent = torch.frexp(scores)
    return torch.ldexp((mantissa * SNAP).round() / SNAP, exponent)


def percentiles(scores: Float[Tensor, "Q N"], strata: Int[Tensor, " N"]) -> Float[Tensor, "Q N"]:
    """Mid-ranks within strata over stratum size, in (0, 1). Ties get their middle: breaking them by position would
    favour a side."""
    sizes = torch.bincount(strata)
    starts = torch.cumsum(sizes, 0) - sizes
    upward = _positions(scores, strata)
    # The same sort on negated scores visits ties in the same order, so the two positions average to the mid-rank.
    downward = (starts + starts + sizes - 1)[strata] - _positions(-scores, strata)
    middle = (upward + downward).double() / 2 - starts[strata]
    return ((middle + 0.5) / sizes[strata]).float()


def _positions(scores: Float[Tensor, "Q N"], strata: Int[Tensor, " N"]) -> Int[Tensor, "Q N"]:
    """Place of each row when rows are sorted by stratum and then, stably, by score."""
    by_score = torch.argsort(scores, dim=1, stable=True)
    by_stratum = torch.argsort(strata[by_score], dim=1, stable=True)
    order = torch.gather(by_score, 1, by_stratum)
    places = torch.empty_like(order)
    return places.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))


def _weights(u: Float[Tensor, "Q N"]) -> Float[Tensor, "Q F N"]:
    """A weight per row for the rank sum and each tail: their product with a split is the statistic."""
    return torch.stack([u - 0.5, *((u > 1.0 - share).to(u.dtype) for share in TAILS)], dim=1)
