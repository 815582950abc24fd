"""How rare a value is among clean ones, on a scale that all measures share: minus the log of the share as extreme.

Within the clean values an empirical distribution; beyond them an exponential tail with the mean excess of the outermost
tenth, so that what lies twice as far counts as rarer and ties do not pile up at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rarity"]

KNOTS: Final = 512
"""Quantiles kept of each measure."""

TAIL: Final = 0.10


@dataclass(frozen=True)
class Rarity:
    """Of K measures. `knots` `[K, Q]` ascend in each row; `rarities` `[K, Q]` are those of the upper tail at
    them, and `slopes` `[K]` what a unit beyond the last adds."""

    knots: NDArray[np.float64]
    rarities: NDArray[np.float64]
    slopes: NDArray[np.float64]

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> "Rarity":
        """From clean values `[n, K]`, none missing."""
        parts = [_tail(np.sort(column)) for column in values.T]
        return cls(*(np.stack(part) for part in zip(*parts, strict=True)))

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> "Rarity":
        """Of what `arrays()` gave, each under `name` and a dot."""
        return cls(*(arrays[f"{name}.{part}"] for part in ("knots", "rarities", "slopes")))

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        return {"knots": self.knots, "rarities": self.rarities, "slopes": self.slopes}

    def __call__(self, values: NDArray[np.float64], needed: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Rarity of values `[m, K]`; NaN stays NaN. Measures that are not `needed` get 0."""
        found = np.zeros(values.shape)
        for k in range(values.shape[1]) if needed is None else np.flatnonzero(needed):
            column = values[:, k]
            last = self.knots[k, -1]
            inside = np.interp(column, self.knots[k], self.rarities[k])
            found[:, k] = inside + np.maximum(column - last, 0.0) * self.slopes[k]
        return found


def _tail(ascending: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], np.float64]:
    n = len(ascending)
    places = np.unique(np.rint((1 - np.geomspace(1.0 / n, 1.0, KNOTS // 2)) * n).astype(int).clip(0, n - 1))
    places = np.union1d(places, np.linspace(0, n - 1, KNOTS // 2).astype(int))
    knots = ascending[places]
    at_least = n - np.searchsorted(ascending, knots, side="left")
    rarities = -np.log((at_least + 1) / (n + 1))
    excess = ascending[-max(int(n * TAIL), 1) :]
    scale = float((excess - excess[0]).mean())
    slope = 1.0 / scale if scale > 0 else 0.0
    padded = np.full((2, KNOTS + 1), knots[-1])
    padded[1] = rarities[-1]
    padded[0, : len(knots)], padded[1, : len(knots)] = knots, rarities
    return padded[0], padded[1], np.float64(slope)
