"""How a row lies among its predicted class's rows in the last hidden layer: kernel density, and divergence from the
class's mean activation. Both as Tuna, Catak & Eskil (arXiv 2012.06390) define them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydrophone.detectors.samples.rows import Rows
from hydrophone.detectors.samples.scaling import Scale, strata_of

__all__ = ["ClassDensity"]

NAMES: Final = ("closeness.kde", "closeness.kl")
POINTS: Final = 400
"""Most rows of a class that a density is made of."""

NEIGHBOUR: Final = 5
"""A class's bandwidth is the median distance of its rows to this neighbour."""

TINY: Final = 1e-30


@dataclass(frozen=True)
class ClassDensity:
    """`points` `[P, D]` sorted by stratum, `starts` `[S + 1]`, `bandwidths` `[S]`, log mean activations `[S, D]`."""

    layer: str
    classes: NDArray[np.int64]
    scale: Scale
    points: Tensor
    starts: NDArray[np.int64]
    bandwidths: NDArray[np.float64]
    log_means: Tensor

    @classmethod
    def fit(cls, rows: Rows, layer: str, classes: NDArray[np.int64], bandwidth: float | None = None) -> "ClassDensity":
        """On natural rows, all finite. `bandwidth`, in units of the scaled layer, for all classes; None: per class."""
        values = rows.layer(layer, rows.frame.layers[layer].shape[1])
        predicted = rows.classes()
        assert values is not None and predicted is not None, "what is fitted on is there"  # noqa: PT018
        scale = Scale.fit(values)
        strata = strata_of(predicted, classes)
        points, bandwidths, means = [], [], []
        for stratum in range(len(classes)):
            members = values[torch.from_numpy(np.flatnonzero(strata == stratum))]
            scaled = scale(members)
            means.append(members.double().softmax(1).mean(0).clamp(min=TINY).log())
            bandwidths.append(bandwidth or _bandwidth(scaled))
            points.append(scaled[:POINTS])
        starts = np.cumsum([0, *map(len, points)])
        stacked = torch.stack(means).float()
        return cls(layer, classes, scale, torch.cat(points), starts, np.array(bandwidths), stacked)

    @classmethod
    def load(
        cls, layer: str, arrays: Mapping[str, NDArray[Any]], classes: NDArray[np.int64], device: torch.device
    ) -> "ClassDensity":
        points, means = (
            torch.from_numpy(np.array(arrays[name], np.float32)).to(device) for name in ("points", "log_means")
        )
        return cls(layer, classes, Scale.load(arrays, device), points, arrays["starts"], arrays["bandwidths"], means)

    def measures(self) -> tuple[str, ...]:
        return NAMES

    def score(self, rows: Rows) -> Mapping[str, NDArray[np.float64]]:
        """Log density (low is far), and KL(softmax of the row ‖ mean softmax of its class)."""
        found = {name: np.full(len(rows), np.nan) for name in NAMES}
        predicted = rows.classes()
        values = rows.layer(self.layer, len(self.scale.mean))
        if predicted is None or values is None:
            return found
        strata = strata_of(predicted, self.classes)
        scaled = self.scale(values)
        log_density = torch.full((len(rows),), torch.nan, device=rows.device, dtype=torch.float64)
        for stratum in np.unique(strata[strata >= 0]):
            members = torch.from_numpy(np.flatnonzero(strata == stratum)).to(rows.device)
            log_density[members] = self._log_density(scaled[members], int(stratum))
        found["closeness.kde"] = log_density.cpu().numpy()
        found["closeness.kl"] = self._divergence(values, torch.from_numpy(strata.clip(min=0)).to(rows.device))
        unknown, bad = strata < 0, rows.bad(f"layer.{self.layer}")
        for column in found.values():
            column[unknown if bad is None else unknown | bad] = np.nan
        return found

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return self.scale.arrays() | {
            "points": self.points.cpu().numpy(),
            "starts": self.starts,
            "bandwidths": self.bandwidths,
            "log_means": self.log_means.cpu().numpy(),
        }

    def _log_density(self, scaled: Tensor, stratum: int) -> Tensor:
        """log mean_j exp(-|x - x_j|^2 / 2 h^2), the constant left out."""
        points = self.points[self.starts[stratum] : self.starts[stratum + 1]]
        distances = torch.cdist(scaled, points).square()
        exponents: Tensor = -distances / (2 * float(self.bandwidths[stratum]) ** 2)
        return torch.logsumexp(exponents, 1).double() - math.log(len(points))

    def _divergence(self, values: Tensor, strata: Tensor) -> NDArray[np.float64]:
        log_own = values.log_softmax(1)
        own = log_own.exp()
        divergence = (own * log_own).sum(1) - (own * self.log_means[strata]).sum(1)
        return np.asarray(divergence.double().cpu().numpy())


def _bandwidth(scaled: Tensor) -> float:
    distances = torch.cdist(scaled, scaled)
    neighbour = min(NEIGHBOUR, len(scaled) - 1)
    found = float(distances.kthvalue(neighbour + 1, dim=1).values.median())
    return found if found > 0 else 1.0
