"""Does a row's embedding follow the clean distribution at all? Principal axes and a Gaussian mixture, layer by layer.

A gate for what the model was never meant to see. On adversarial inputs it is a weak detector, and says so in
docs/samples.md. One layer alone accepts uniform noise; the early layers are its companions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor

from hydrophone.detectors.samples.rows import Rows
from hydrophone.detectors.samples.scaling import Scale

__all__ = ["Gate", "Mixture"]

AXES: Final = 32
"""Principal axes kept, at most half of a layer's features where it has more than a few."""

FEW: Final = 16
RIDGE: Final = 1e-3
"""Added to the variances of the scaled axes: rows that hardly differ must not make a component a needle."""


@dataclass(frozen=True)
class Mixture:
    """One layer's. `axes` `[D, k]`; `whiten` `[k, G k]`: the components' precisions' Cholesky factors, side by side;
    `offsets` `[G, k]`: their means seen through them; `constants` `[G]`; `beyond`: the mean variance along the axes
    left out.
    """

    scale: Scale
    axes: Tensor
    whiten: Tensor
    offsets: Tensor
    constants: Tensor
    beyond: Tensor

    @classmethod
    def fit(cls, values: Tensor, *, components: int, axes: int = AXES, seed: int = 0) -> "Mixture":
        scale = Scale.fit(values)
        scaled = scale(values).double().cpu().numpy()
        D = scaled.shape[1]
        k = min(axes, D if D <= FEW else D // 2)
        _, spread, V = np.linalg.svd(scaled, full_matrices=False)
        variances = spread**2 / len(scaled)
        kept = V[:k].T
        left = float(variances[k:].sum() / (D - k)) if k < D else 1.0
        mixture = GaussianMixture(components, reg_covar=RIDGE, random_state=seed, init_params="kmeans", max_iter=200)
        mixture.fit(scaled @ kept)
        # log N(x; mu, P) = -k/2 log 2 pi + log|chol P| - |chol(P)' (x - mu)|^2 / 2
        factors = mixture.precisions_cholesky_
        means = np.einsum("gk,gkj->gj", mixture.means_, factors)
        logdets = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
        constants = np.log(mixture.weights_) + logdets - k / 2 * np.log(2 * np.pi)
        beside = factors.transpose(1, 0, 2).reshape(k, -1)
        parts = (kept, beside, means, constants, [max(left, RIDGE)])
        return cls(scale, *(torch.from_numpy(np.array(part, np.float32)).to(values.device) for part in parts))

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], device: torch.device) -> "Mixture":
        parts = (torch.from_numpy(np.array(arrays[name], np.float32)).to(device) for name in cls.names())
        return cls(Scale.load(arrays, device), *parts)

    @staticmethod
    def names() -> tuple[str, ...]:
        return ("axes", "whiten", "offsets", "constants", "beyond")

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self.scale.arrays() | {name: getattr(self, name).cpu().numpy() for name in self.names()}

    def __call__(self, values: Tensor) -> Tensor:
        """Log-likelihood of rows `[m, D]`: the mixture's along the axes, and beyond them that of even noise (Tipping &
        Bishop, JRSS-B 61, 1999), without which whatever the axes leave out would count as usual."""
        scaled = self.scale(values)
        along = scaled @ self.axes
        k, rest = self.axes.shape[1], scaled.shape[1] - self.axes.shape[1]
        seen = (along @ self.whiten).view(-1, len(self.constants), k) - self.offsets
        mixture = torch.logsumexp(self.constants - seen.square().sum(2) / 2, 1)
        residual = (scaled.square().sum(1) - along.square().sum(1)).clamp(min=0.0)
        noise = -(residual / self.beyond + rest * (self.beyond * 2 * torch.pi).log()) / 2
        return (mixture + (noise if rest else 0.0)).double()


@dataclass(frozen=True)
class Gate:
    """A mixture for each layer; the first is the embedding's, the others are its companions."""

    mixtures: Mapping[str, Mixture]

    @classmethod
    def fit(cls, rows: Rows, layers: Sequence[str], *, components: int, axes: int = AXES, seed: int = 0) -> "Gate":
        """On natural rows, all finite."""
        mixtures = {}
        for name in layers:
            values = rows.layer(name, rows.frame.layers[name].shape[1])
            assert values is not None, "a layer that is fitted on is there"
            mixtures[name] = Mixture.fit(values, components=components, axes=axes, seed=seed)
        return cls(mixtures)

    @classmethod
    def load(cls, arrays: Mapping[str, Mapping[str, NDArray[Any]]], device: torch.device) -> "Gate":
        return cls({name: Mixture.load(parts, device) for name, parts in arrays.items()})

    def measures(self) -> tuple[str, ...]:
        return tuple(f"gate.log_likelihood.{name}" for name in self.mixtures)

    def score(self, rows: Rows) -> Mapping[str, NDArray[np.float64]]:
        found = {}
        for name, mixture in self.mixtures.items():
            values = rows.layer(name, len(mixture.scale.mean))
            scores = np.full(len(rows), np.nan) if values is None else mixture(values).cpu().numpy()
            bad = rows.bad(f"layer.{name}")
            if bad is not None and values is not None:
                scores[bad] = np.nan
            found[f"gate.log_likelihood.{name}"] = scores
        return found

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return {
            f"{name}.{part}": array
            for name, mixture in self.mixtures.items()
            for part, array in mixture.arrays().items()
        }
