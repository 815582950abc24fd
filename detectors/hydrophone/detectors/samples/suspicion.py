"""From measures to one number a row, and from that to a p-value. Thresholds and decisions live in `family.py`.

Every measure becomes two rarities, of its upper and its lower tail; a branch is a weighted sum of them: a logistic
regression where attacks were known at fitting, and sums of one kind of measure where not. The branch in which a row is
rarest speaks for it. All of that is fitted; the p-value ranks its outcome among rows that nothing was fitted on, so
that P(p <= t) <= t for a clean row exchangeable with them (Vovk et al., Algorithmic Learning in a Random World, 2005).
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from hydrophone.detectors.samples.rarity import Rarity

__all__ = ["Suspicion", "group_weights", "regression_weights"]

PENALTY: Final = 0.1
"""Inverse strength of the regression's L2 penalty, on standardised rarities."""

MOST_PATTERNS: Final = 64
"""Sets of missing measures whose calibration is kept: a publisher must not choose how much we remember."""


@dataclass(frozen=True)
class Suspicion:
    """`weights` `[B, 2K]` over centred rarities, upper tails first; `calibration` `[n, K]` are measures of rows that
    nothing was fitted on, kept whole so that rows that lack a measure rank among rows that lack it too."""

    upper: Rarity
    lower: Rarity
    centre: NDArray[np.float64]
    weights: NDArray[np.float64]
    branches: Rarity
    calibration: NDArray[np.float64]
    _ranked: dict[bytes, NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def fit(
        cls, ranks: NDArray[np.float64], weights: NDArray[np.float64], calibration: NDArray[np.float64]
    ) -> "Suspicion":
        """`ranks` `[r, K]` and `calibration` are measures of disjoint natural rows."""
        upper, lower, centre = tails(ranks)
        joined = centred(upper, lower, centre, ranks) @ weights.T
        return cls(upper, lower, centre, weights, Rarity.fit(joined), calibration)

    def __call__(self, measures: NDArray[np.float64]) -> NDArray[np.float64]:
        """Suspicion of rows `[m, K]`; what is NaN adds nothing. NaN where every measure is missing."""
        needed = np.asarray(self.weights.any(0))
        joined = centred(self.upper, self.lower, self.centre, measures, needed) @ self.weights.T
        found = self.branches(joined).max(1)
        found[np.isnan(measures).all(1)] = np.nan
        return np.asarray(found)

    def p_values(self, measures: NDArray[np.float64], suspicion: NDArray[np.float64]) -> NDArray[np.float64]:
        """(1 + #{calibration rows as suspicious}) / (their number + 1), those judged by the same measures."""
        found = np.full(len(measures), np.nan)
        missing = np.isnan(measures)
        if missing.any():
            patterns, which = np.unique(missing, axis=0, return_inverse=True)
        else:
            patterns, which = missing[:1], np.zeros(len(measures), np.intp)
        for place, pattern in enumerate(patterns):
            rows = which.ravel() == place
            if pattern.all():
                continue
            ranked = self._calibrated(pattern)
            at_least = len(ranked) - np.searchsorted(ranked, suspicion[rows], side="left")
            found[rows] = (1 + at_least) / (len(ranked) + 1)
        return found

    def _calibrated(self, pattern: NDArray[np.bool_]) -> NDArray[np.float64]:
        key = pattern.tobytes()
        with self._turn:
            if key not in self._ranked:
                kept = self.calibration[~np.isnan(self.calibration[:, ~pattern]).any(1)].copy()
                kept[:, pattern] = np.nan
                if len(self._ranked) >= MOST_PATTERNS:
                    self._ranked.clear()
                self._ranked[key] = np.sort(self(kept))
            return self._ranked[key]

    def arrays(self) -> dict[str, NDArray[Any]]:
        found = {name: getattr(self, name) for name in ("centre", "weights", "calibration")}
        for name in ("upper", "lower", "branches"):
            found |= {f"{name}.{part}": array for part, array in getattr(self, name).arrays().items()}
        return found

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]]) -> "Suspicion":
        upper, lower, branches = (Rarity.load(arrays, name) for name in ("upper", "lower", "branches"))
        return cls(upper, lower, arrays["centre"], arrays["weights"], branches, arrays["calibration"])


def tails(ranks: NDArray[np.float64]) -> tuple[Rarity, Rarity, NDArray[np.float64]]:
    """Of clean measures: both tails, and what a clean row has of them on average."""
    upper, lower = Rarity.fit(ranks), Rarity.fit(-ranks)
    both = np.hstack([upper(ranks), lower(-ranks)])
    return upper, lower, both.mean(0)


def centred(
    upper: Rarity,
    lower: Rarity,
    centre: NDArray[np.float64],
    measures: NDArray[np.float64],
    needed: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Both tails' rarities less a clean row's; 0 for what is missing. Those not `needed` hold nothing of use."""
    above, below = (None, None) if needed is None else np.split(needed, 2)
    both: NDArray[np.float64] = np.hstack([upper(measures, above), lower(-measures, below)]) - centre
    return np.nan_to_num(both, nan=0.0)


def regression_weights(
    features: NDArray[np.float64], is_hostile: NDArray[np.bool_], penalty: float = PENALTY
) -> NDArray[np.float64]:
    """Weights of a logistic regression that counts both sides alike; its intercept does not change any order."""
    scale = features.std(0)
    scale[scale == 0] = 1.0
    fitted = LogisticRegression(C=penalty, class_weight="balanced", max_iter=2_000).fit(features / scale, is_hostile)
    return np.asarray(fitted.coef_[0] / scale)


DOUBT: Final = ("uncertainty.variance", "uncertainty.entropy", "uncertainty.mutual_information", "output.")
TRUST: Final = ("uncertainty.confidence",)

SIDES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "unsure": (DOUBT, TRUST),
    "sure": (TRUST, DOUBT),
    "density": (("closeness.kl",), ("closeness.kde",)),
    "layers": (("closeness.mahalanobis.", "closeness.residual."), ()),
    "gate": ((), ("gate.",)),
}
"""Branches made of natural rows alone: the measures whose upper, and whose lower, tail is suspicious."""


def group_weights(measures: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """One branch `[2K]` for each kind of evidence there is."""
    found = {}
    for name, (upper, lower) in SIDES.items():
        row = np.array([m.startswith(upper) for m in measures] + [m.startswith(lower) for m in measures], np.float64)
        if row.any():
            found[name] = row / row.sum()
    return found
