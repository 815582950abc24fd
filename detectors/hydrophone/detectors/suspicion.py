"""Who and how many: a p-value for each row of a window, the rows it names, and the share that is not clean.

A row is compared with the reference's rows of its class, score by score, and the comparisons are joined into one number
that is ranked among the reference rows' own. A p-value says how rare such a row is in clean traffic; it does not say
hostile. How scores are made lives in `closeness.py` and `outputs.py`.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["FALSE_DISCOVERIES", "Share", "contaminated_share", "named_rows", "row_p_values"]

FALSE_DISCOVERIES: Final = 0.10
"""Most of the rows named that may be clean, on average."""

LEAST_CLASS_ROWS: Final = 20
"""Reference rows of a class that a row of it is compared with; with fewer it is compared with all."""

SHARE_LEVEL: Final = 0.90
"""Confidence of the interval of the contaminated share."""

UNREMARKABLE: Final = 0.5
"""Rows with a larger p-value are taken for clean when the others are counted (Storey, JRSS-B 64, 2002)."""


def row_p_values(
    scores: Float[Tensor, "Q N"], strata: Int[Tensor, " N"], n: int, weights: Float[Tensor, " Q"]
) -> Float[Tensor, " m"]:
    """Conformal p-values of rows n..N-1, rows 0..n-1 being the reference's. Large scores are suspicious.

    u_q = (1 + #{reference rows of the class with a score as large}) / (their number + 1), a reference row being left
    out of its own comparison; the joined score Σ_q w_q (-log u_q) is ranked among those of the reference rows. For a
    clean row exchangeable with them P(p <= t) <= t, up to the choice of `weights` by the window as a whole, and such
    p-values are positively dependent, so that Benjamini-Hochberg holds (Bates et al., Annals of Statistics 51, 2023,
    theorem 2).
    """
    rarity = torch.empty_like(scores)
    is_reference = torch.arange(scores.shape[1], device=scores.device) < n
    for stratum in torch.unique(strata).tolist():
        members = strata == stratum
        known = members & is_reference
        if int(known.sum()) < LEAST_CLASS_ROWS:
            known = is_reference
        ranked = torch.sort(scores[:, known], dim=1).values
        for own, rows in ((1, members & is_reference), (0, members & ~is_reference)):
            rarity[:, rows] = _rarity(ranked, scores[:, rows].contiguous(), own=own)
    joined = weights.to(rarity.dtype) @ rarity
    at_least = n - torch.searchsorted(torch.sort(joined[:n]).values, joined[n:].contiguous(), side="left")
    return (1 + at_least).double() / (n + 1)


def _rarity(ranked: Float[Tensor, "Q k"], values: Float[Tensor, "Q r"], *, own: int) -> Float[Tensor, "Q r"]:
    """-log of the share of rows as large, the row itself among them; with `own` = 1 it is one of the k already."""
    k = ranked.shape[1]
    at_least = k - torch.searchsorted(ranked, values, side="left")
    return -((1 - own + at_least).double() / (k + 1 - own)).log()


def named_rows(p_values: NDArray[np.float64], rate: float = FALSE_DISCOVERIES) -> NDArray[np.bool_]:
    """Benjamini & Hochberg (JRSS-B 57, 1995): of the rows named, `rate` are clean at most, on average."""
    m = len(p_values)
    order = np.argsort(p_values, kind="stable")
    below = np.flatnonzero(p_values[order] <= rate * np.arange(1, m + 1) / m)
    named = np.zeros(m, np.bool_)
    if below.size:
        named[order[: below[-1] + 1]] = True
    return named


@dataclass(frozen=True, slots=True)
class Share:
    """An estimated share of rows, and an interval that holds it at `level`."""

    fraction: float
    low: float
    high: float
    level: float


def contaminated_share(p_values: NDArray[np.float64], n: int, level: float = SHARE_LEVEL) -> Share:
    """The share of rows that are not like the n reference rows, from their p-values.

    Of clean rows a share t has p <= t. The surplus below t, over what is not clean at most, bounds the share from below
    for every t (Meinshausen & Rice, Annals of Statistics 34, 2006); rows with p > 1/2, were they all clean, bound it
    from above, and give the estimate. Both bounds allow for the error of both empirical distributions (Dvoretzky,
    Kiefer & Wolfowitz with Massart's constant), each at half of 1 - level. Rows that are rare in no score count as
    clean: the upper bound is one for what the scores can see.
    """
    m = len(p_values)
    slack = math.sqrt(math.log(2 / (1 - level)) / 2 * (1 / m + 1 / n))
    t = np.sort(p_values)
    surplus = (np.arange(1, m + 1) / m - t - slack) / np.maximum(1 - t, 1e-9)
    low = float(np.clip(surplus[t < 1].max(initial=0.0), 0.0, 1.0))
    unremarkable = float((p_values > UNREMARKABLE).mean())
    fraction = 1 - unremarkable / (1 - UNREMARKABLE)
    high = 1 - (unremarkable - slack) / (1 - UNREMARKABLE)
    return Share(float(np.clip(fraction, low, 1.0)), low, float(np.clip(high, low, 1.0)), level)
