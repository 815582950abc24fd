"""The layer-wise method as published and coded by its authors, for comparison only: its defects are kept.

LADIS: a detection rate per layer, the share of re-drawn sub-samples of a window whose wild-bootstrap MMD test has
p < 5 %. Written anew from the method: five Gaussian kernels summed, biased MMD², a reference drawn with the window's
predicted classes, multipliers that are in effect independent, a p-value that can be 0.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import signal
from torch import Tensor

from hydrophone.schemas.frame import Frame

__all__ = ["REDRAWS", "Published"]

REDRAWS: Final = 100
REDRAWN_ROWS: Final = 100
BOOTSTRAPS: Final = 100
LEVEL: Final = 0.05
SEED: Final = 34
"""The authors' seed 17, doubled as they do; the same for every window."""
WIDEST: Final = 2
KERNELS: Final = 5
"""Standard deviations 2^-2 ... 2^2 times the median distance."""
BOOTSTRAP_LENGTH: Final = 0.2
ROUNDING: Final = 1e-6
"""p is a multiple of 1/100; a p of 5 % is no hit."""


@dataclass(frozen=True, slots=True)
class _Scaled:
    rows: Float[Tensor, "n d"]
    mean: Float[Tensor, " d"]
    deviation: Float[Tensor, " d"]

    @classmethod
    def fit(cls, values: NDArray[np.floating]) -> "_Scaled":
        rows = torch.tensor(values, dtype=torch.float32)
        mean, deviation = rows.mean(0), rows.std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)  # as scikit-learn's StandardScaler
        return cls((rows - mean) / deviation, mean, deviation)

    def scaled(self, values: NDArray[np.floating]) -> Float[Tensor, "m d"]:
        return (torch.tensor(values, dtype=torch.float32) - self.mean) / self.deviation


class Published:
    """Holds the hold-out set; `detection_rates` judges one window."""

    def __init__(self, holdout: Frame, *, redraws: int = REDRAWS) -> None:
        self._layers = {name: _Scaled.fit(values) for name, values in holdout.layers.items()}
        self._classes = _classes(holdout)
        self._redraws = redraws

    def detection_rates(self, window: Frame) -> dict[str, float]:
        """Per layer; all layers see the same re-draws."""
        generator = np.random.default_rng(SEED)
        size = min(REDRAWN_ROWS, len(window))
        drawn = [generator.choice(len(window), size, replace=False) for _ in range(self._redraws)]
        classes = _classes(window)
        matched = [self._matched(classes[rows], generator) for rows in drawn]
        Y_rows, X_rows = torch.from_numpy(np.stack(drawn)), torch.from_numpy(np.stack(matched))
        multipliers = _multipliers(self._redraws, size, generator)
        return {
            name: _rate(layer.rows[X_rows], layer.scaled(window.layers[name])[Y_rows], multipliers)
            for name, layer in self._layers.items()
        }

    def _matched(self, classes: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.intp]:
        """Hold-out rows, each weighted by how many rows drawn from the window have its class.

        A class is drawn as often as it is common in *both* sets, so the match is loose.
        """
        weights = np.bincount(classes, minlength=int(self._classes.max()) + 1)[self._classes].astype(np.float64)
        return generator.choice(len(weights), len(classes), replace=False, p=weights / weights.sum())


def _classes(frame: Frame) -> NDArray[np.int64]:
    classes = frame.classes()
    if classes is None:
        raise ValueError("the published method matches predicted classes: a frame needs `predicted` or `output`")
    return classes


def _multipliers(redraws: int, size: int, generator: np.random.Generator) -> Float[Tensor, "t n B"]:
    """An autoregression of coefficient exp(-1 / 0.2) = .0067, and along the bootstraps: in effect none."""
    coefficient = np.exp(-1 / BOOTSTRAP_LENGTH)
    noise = np.sqrt(1 - coefficient**2) * generator.standard_normal((redraws, size, BOOTSTRAPS))
    process = signal.lfilter([1.0], [1.0, -coefficient], noise, axis=2)
    return torch.from_numpy(process - process.mean(axis=1, keepdims=True)).float()


def _rate(X: Float[Tensor, "t n d"], Y: Float[Tensor, "t n d"], multipliers: Float[Tensor, "t n B"]) -> float:
    """Share of tests with p < 5 %; t tests of n against n rows at once."""
    H = _differences(X, Y)
    observed = H.mean((1, 2))
    null = (multipliers * (H @ multipliers)).sum(1) / H.shape[1] ** 2
    p = 1.0 - (null < observed[:, None]).sum(1) / BOOTSTRAPS
    return float((p < LEVEL - ROUNDING).double().mean())


def _differences(X: Float[Tensor, "t n d"], Y: Float[Tensor, "t n d"]) -> Float[Tensor, "t n n"]:
    """Kxx + Kyy - 2 Kxy, whose mean is the biased MMD²."""
    dxx, dyy, dxy = (torch.cdist(A, B).square() for A, B in ((X, X), (Y, Y), (X, Y)))
    variance = dxy.flatten(1).median(1).values[:, None, None] / 2
    return _kernel_sum(dxx, variance) + _kernel_sum(dyy, variance) - 2 * _kernel_sum(dxy, variance)


def _kernel_sum(squared: Float[Tensor, "t n n"], variance: Float[Tensor, "t 1 1"]) -> Float[Tensor, "t n n"]:
    """Five kernels, each half as wide as the one before it: its fourth power."""
    kernel = torch.exp(-squared / (2 * variance * 4**WIDEST))
    total = kernel.clone()
    for _ in range(KERNELS - 1):
        kernel = kernel.square().square()
        total += kernel
    return total
