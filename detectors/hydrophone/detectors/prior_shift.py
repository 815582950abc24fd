"""Has the mix of predicted classes changed? A signal beside the window test, which within strata does not see it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from hydrophone.schemas.score import PriorShift

__all__ = ["DRAWS", "chi_square", "prior_shift"]

DRAWS: Final = 1_999
"""Windows drawn under the null: no p is below 1 / 2,000."""

STREAM: Final = 0x6D6978
"""Tells these draws from the splits, which come from the same seed."""

SAME: Final = 1e-9
"""Statistics that differ by less, relatively, are equal: they are sums of the same few fractions."""


def prior_shift(names: Sequence[str], reference: Sequence[int], window: Sequence[int], *, seed: int) -> PriorShift:
    """Compare rows per stratum, one entry per stratum in each sequence, with at least one row on either side.

    Given the pooled counts, the window's follow a multivariate hypergeometric law where all rows are exchangeable: the
    null is drawn from it, so p = (1 + #{null >= observed}) / (DRAWS + 1) is exact for any counts, small ones included.
    The strata must not have been chosen by rows counted here: count the natural rows that nothing was fitted on.
    """
    observed, clean = np.array(window, np.int64), np.array(reference, np.int64)
    pooled = observed + clean
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, STREAM])))
    null = chi_square(draw.multivariate_hypergeometric(pooled, observed.sum(), DRAWS, method="marginals"), pooled)
    statistic = float(chi_square(observed[None], pooled)[0])
    reached = int((null >= statistic * (1 - SAME) - SAME).sum())
    shares = zip(names, observed / observed.sum(), clean / clean.sum(), strict=True)
    return PriorShift(
        p_value=(1 + reached) / (DRAWS + 1),
        statistic=statistic,
        shares={name: (float(mine), float(theirs)) for name, mine, theirs in shares if mine or theirs},
    )


def chi_square(windows: Int[np.ndarray, "B S"], pooled: Int[np.ndarray, " S"]) -> Float[np.ndarray, " B"]:
    """Pearson's statistic of the 2 × S table of each window and what it leaves of the pooled rows (Pearson 1900); the
    reference's cells deviate by the same differences, so they only add a factor."""
    m, N = windows[0].sum(), pooled.sum()
    present = pooled > 0
    expected: NDArray[np.float64] = pooled[present] * (m / N)
    deviations = ((windows[:, present] - expected) ** 2 / expected).sum(1)
    return np.asarray(deviations * (N / (N - m)), np.float64)
