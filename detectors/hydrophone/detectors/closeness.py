"""How far a row lies from where its class's rows lie, in one layer: two scalars a row. Counting them: `scalars.py`.

A kernel test is dense: it averages over all pairs, so a few far rows drown. A scalar per row, fitted on rows that are
not permuted, can be ranked and its tail counted. Strong attacks leave a class's cloud in early layers even where the
last layer is fooled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from torch import Tensor

__all__ = ["CLOSENESS", "KEPT_AXES", "Closeness"]

CLOSENESS: Final = ("mahalanobis", "residual")
"""The measures, in the order of `Closeness.__call__`."""

KEPT_AXES: Final = 256
"""Most principal axes kept of a layer; what lies beyond counts by its mean variance."""

RESIDUAL_AXES: Final = 64
"""Most leading axes a residual leaves out; at most half of a layer's features."""

ROUNDING: Final = 1e-6
"""Of a row's energy: a residual below it is what float32 axes leave of a row that lies within them."""

LEAST_VARIANCE: Final = 1e-6
"""Of the largest: below it an axis is rounding, and dividing by it would count that."""


@dataclass(frozen=True)
class Closeness:
    """Class means `[S, d]`, principal axes `[d, k]` of the spread within classes, variances along them and beyond."""

    means: Float[Tensor, "S d"]
    axes: Float[Tensor, "d k"]
    variances: Float[Tensor, " k"]
    beyond: Float[Tensor, " 1"]

    @classmethod
    def fit(cls, rows: NDArray[np.float32], strata: NDArray[np.int64], classes: int) -> "Closeness":
        """From scaled fit rows; a stratum without any takes the mean of all.

        The covariance is shrunk towards a multiple of the identity (Ledoit & Wolf, J. Multivariate Analysis 88, 2004),
        so that it can be inverted however few the rows.
        """
        means = np.tile(rows.mean(0), (classes, 1))
        for stratum in np.unique(strata):
            means[stratum] = rows[strata == stratum].mean(0)
        covariance, _ = ledoit_wolf(rows - means[strata], assume_centered=True)
        values, vectors = np.linalg.eigh(covariance.astype(np.float64))
        values = np.maximum(values[::-1], LEAST_VARIANCE * values[-1] + np.finfo(np.float32).tiny)
        kept = min(KEPT_AXES, len(values))
        beyond = values[kept:].mean() if kept < len(values) else 1.0
        parts = (means, vectors[:, ::-1][:, :kept], values[:kept], [beyond])
        return cls(*(torch.from_numpy(np.array(part, np.float32)) for part in parts))

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], device: torch.device) -> "Closeness":
        """What `arrays()` gave."""
        return cls(*(torch.from_numpy(np.array(arrays[name], np.float32)).to(device) for name in cls.names()))

    @staticmethod
    def names() -> tuple[str, ...]:
        return ("means", "axes", "variances", "beyond")

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        return {name: getattr(self, name).cpu().numpy() for name in self.names()}

    def __call__(self, rows: Float[Tensor, "m d"], strata: Int[Tensor, " m"]) -> Float[Tensor, "2 m"]:
        """Squared Mahalanobis distance to the row's class mean, and squared norm of what the leading axes leave out.

        In float64: equal rows must get equal scores whatever else is in the product, see `scalars.snapped`.
        """
        offset = rows.double() - self.means[strata]
        energy = offset.square().sum(1)
        along = (offset @ self.axes.double()).square()
        rest = (energy - along.sum(1)).clamp(min=0.0) if along.shape[1] < rows.shape[1] else torch.zeros_like(energy)
        leading = min(RESIDUAL_AXES, rows.shape[1] // 2)
        residual = energy - along[:, :leading].sum(1)
        residual = torch.where(residual > ROUNDING * energy, residual, 0.0)
        return torch.stack([(along / self.variances).sum(1) + rest / self.beyond, residual])
