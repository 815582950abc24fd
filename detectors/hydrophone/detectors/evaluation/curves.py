"""One score against the truth: ROC, area, average precision, and what a threshold makes of it. scikit-learn counts."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

__all__ = ["Curve", "Decided", "Rate", "auc", "curve", "decided", "rate"]

POINTS: Final = 200


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `rows`, as a share with its 95 % interval (Wilson)."""

    count: int
    rows: int
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """`auc` and `average_precision` of a score that should be larger for positives; `unknown` rows had none and count
    as the least suspicious. The curve itself is thinned to a few points."""

    positives: int
    negatives: int
    unknown: int
    auc: float
    average_precision: float
    false_positive_rates: tuple[float, ...]
    true_positive_rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """What decisions are worth. Precision and F1 depend on how many positives there are to how many negatives."""

    precision: float | None
    recall: float
    f1: float
    false_positive_rate: float


def rate(count: int, rows: int) -> Rate:
    if not rows:
        return Rate(count, rows, None, None, None)
    interval = binomtest(count, rows).proportion_ci(method="wilson")
    return Rate(count, rows, count / rows, float(interval.low), float(interval.high))


def auc(scores: NDArray[np.floating], is_positive: NDArray[np.bool_]) -> float | None:
    """Of the finite scores; None where a side has none of them."""
    known = np.isfinite(scores)
    sides = is_positive[known]
    if not sides.any() or sides.all():
        return None
    return float(roc_auc_score(sides, scores[known]))


def curve(scores: NDArray[np.floating], is_positive: NDArray[np.bool_]) -> Curve:
    known = np.isfinite(scores)
    least = float(scores[known].min()) if known.any() else 0.0
    values = np.where(known, scores, least - 1).astype(np.float64)
    false, true, _ = roc_curve(is_positive, values)
    kept = np.unique(np.linspace(0, len(false) - 1, min(POINTS, len(false))).round().astype(int))
    return Curve(
        positives=int(is_positive.sum()),
        negatives=int((~is_positive).sum()),
        unknown=int((~known).sum()),
        auc=float(roc_auc_score(is_positive, values)),
        average_precision=float(average_precision_score(is_positive, values)),
        false_positive_rates=tuple(false[kept].tolist()),
        true_positive_rates=tuple(true[kept].tolist()),
    )


def decided(is_flagged: NDArray[np.bool_], is_positive: NDArray[np.bool_]) -> Decided:
    hits, false = int((is_flagged & is_positive).sum()), int((is_flagged & ~is_positive).sum())
    missed, negatives = int((~is_flagged & is_positive).sum()), int((~is_positive).sum())
    return Decided(
        precision=hits / (hits + false) if hits + false else None,
        recall=hits / (hits + missed),
        f1=2 * hits / (2 * hits + false + missed),
        false_positive_rate=false / negatives,
    )
