"""Mean and scale of a layer's features, and predicted classes as strata: what every density starts from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Scale", "strata_of"]

FLOOR: Final = 0.1
"""Least scale of a feature, as a share of the layer's: a unit that hardly fires on clean traffic would drown all."""


@dataclass(frozen=True)
class Scale:
    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, values: Tensor) -> "Scale":
        deviation = values.double().std(0, correction=0)
        typical = float(deviation.square().mean().sqrt()) or 1.0
        return cls(values.double().mean(0).float(), deviation.clamp(min=FLOOR * typical).float())

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], device: torch.device) -> "Scale":
        return cls(*(torch.from_numpy(np.array(arrays[name], np.float32)).to(device) for name in ("mean", "scale")))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"mean": self.mean.cpu().numpy(), "scale": self.scale.cpu().numpy()}

    def __call__(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.scale


def strata_of(classes: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each class among the known ones, which ascend; -1 for a class never seen at fitting."""
    places = np.searchsorted(known, classes).clip(max=len(known) - 1)
    return np.where(known[places] == classes, places, -1)
