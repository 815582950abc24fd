"""What one reference does to every window it serves, and what is allowed for it. The statistics live elsewhere.

A permutation p-value is exact over draws of the reference. A user has one: given it, a clean window's normal score is
modelled as N(delta, 1 − rho) with delta ~ N(0, rho) drawn once, so that a user's rate of rejections is not alpha but
anything around it, the farther the smaller the reference. The allowance is for delta at its 95th percentile.
"""

import math
from statistics import NormalDist
from typing import Final, Literal

__all__ = ["ENOUGH_ROWS", "TOLERATED", "UNLUCKY", "level_in_force", "shared_variance"]

ENOUGH_ROWS: Final = 16
"""Reference rows per window row from which on alpha is used as it is (docs/detection.md)."""

TOLERATED: Final = 1.5
"""With fewer, at least 95 % of references reject at most so many times alpha."""

REFERENCE_SHARE: Final = 0.5
"""Of m/(n+m), what is shared of a joint statistic: between (m/(n+m))² of an MMD and m/(n+m) of a mean or a rank sum.
Measured 0.41 at n = 4m and 0.52 at n = 16m (docs/decisions/0011-evidence-over-time.md)."""

WINDOWS_SHARE: Final = 2 / 199
"""The same for a rank among clean windows, at the fewest that are used for ranking."""

UNLUCKY: Final = NormalDist().inv_cdf(0.95)
"""Of standard normal numbers, 95 % are smaller: the share of references that is allowed for."""


def shared_variance(
    calibration: Literal["permutation", "stratified", "blocks", "windows"], *, tested: int, reference_rows: int
) -> float:
    """The part of a clean window's normal score, as variance in [0, 1), that is the reference's and so every window's.

    One reference of n rows serves all windows of m rows: what is odd about it is odd about each of them.
    """
    if calibration == "windows":
        return WINDOWS_SHARE
    return REFERENCE_SHARE * tested / (reference_rows + tested) if tested else 0.0


def level_in_force(alpha: float, *, tested: int, reference_rows: int) -> float:
    """The level at which 95 % of references of so many rows reject at most `TOLERATED` · alpha of clean windows of
    `tested` rows; alpha itself for a reference of `ENOUGH_ROWS` rows a window row.

    Solves P(Z > c | delta) = TOLERATED · alpha for c, in the model above, and gives P(Z > c).
    """
    if reference_rows >= ENOUGH_ROWS * tested or TOLERATED * alpha >= 1:
        return alpha
    shared = shared_variance("permutation", tested=tested, reference_rows=reference_rows)
    normal = NormalDist()
    cut = UNLUCKY * math.sqrt(shared) + normal.inv_cdf(1 - TOLERATED * alpha) * math.sqrt(1 - shared)
    return min(alpha, 1 - normal.cdf(cut))
