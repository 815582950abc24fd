"""Evidence over time: p-values of successive windows to one number that rarely grows large by chance.

A Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo, arXiv 2203.03532). Each shift d of `SHIFTS` keeps its own

    M_d <- (M_d + 1) · E_d,    E_d = exp(d·z − d²/2),    z the normal score of the window's p-value,

and their mean is the evidence. Where every E_d has mean <= 1 given the past, mean(M) − t is a supermartingale: an alarm
at mean(M) >= A, with a restart at 0, comes at most t / A times in t windows on average. No budget lives here, no alert.
"""

import math
from statistics import NormalDist, fmean
from typing import Final

from hydrophone.detectors.finite_reference import UNLUCKY

__all__ = ["NO_EVIDENCE", "SHIFTS", "accumulate", "evidence_over_time"]

SHIFTS: Final = (0.5, 1.0, 2.0, 3.0)
"""Shifts of a window's normal score that are listened for, from a faint leak to a plain attack."""

NO_EVIDENCE: Final = (0.0,) * len(SHIFTS)

SMALLEST_P: Final = 1e-300
LARGEST: Final = 1e300
"""Stays finite, in memory and as JSON, whatever comes."""


def accumulate(past: tuple[float, ...], p_value: float, *, shared: float) -> tuple[float, ...]:
    """M after one more window; `past` is M before it, `NO_EVIDENCE` (or anything of another length) for none.

    Given the reference, a clean window's normal score is modelled as N(delta, 1 − shared), delta ~ N(0, shared) drawn
    once. With delta at its 95th percentile the e-values are valid for all but the unluckiest 5 % of references: a
    finite-reference correction, as arXiv 2602.13848 asks for, under a stated model.
    """
    past = past if len(past) == len(SHIFTS) else NO_EVIDENCE
    z = (_normal_score(p_value) - UNLUCKY * math.sqrt(shared)) / math.sqrt(1 - shared)
    return tuple(min((M + 1) * math.exp(d * z - d * d / 2), LARGEST) for M, d in zip(past, SHIFTS, strict=True))


def evidence_over_time(M: tuple[float, ...]) -> float:
    """What is compared with the threshold: the mean over shifts, an e-detector like each of them."""
    return fmean(M) if M else 0.0


def _normal_score(p_value: float) -> float:
    """Large for small p. Ends are cut off where a double has no next number."""
    return -NormalDist().inv_cdf(min(max(p_value, SMALLEST_P), 1 - 1e-16))
