"""How many components and axes a gate needs, told by inputs that it should refuse. Nothing else is tuned here."""

import itertools
from typing import Final

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from hydrophone.detectors.samples.gate import Gate
from hydrophone.detectors.samples.rarity import Rarity
from hydrophone.detectors.samples.rows import Rows
from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.frame import Frame

__all__ = ["tuned"]

FACTORS: Final = (1, 2)
"""Components tried, in units of the default."""

AXES: Final = (16, 32, 64)


def tuned(
    density: Frame, clean: Frame, strange: Frame, layers: list[str], components: int, *, seed: int, device: torch.device
) -> tuple[int, int]:
    """The components and axes whose gate tells `strange` rows from `clean` ones best, by the mean rarity over layers;
    `density` is what it is fitted on. The first of equals."""
    absent = sorted(set(layers) - set(strange.layers))
    if absent:
        raise ReferenceInvalid(f"outside frames must bring the layers that are judged; they lack {absent}")
    found = {}
    rows, inside, out = (Rows(frame, device) for frame in (density, clean, strange))
    for factor, axes in itertools.product(FACTORS, AXES):
        gate = Gate.fit(rows, layers, components=factor * components, axes=axes, seed=seed)
        usual = -np.column_stack(list(gate.score(inside).values()))
        unusual = -np.column_stack(list(gate.score(out).values()))
        rarity = Rarity.fit(usual)
        scores = np.r_[rarity(usual).mean(1), rarity(unusual).mean(1)]
        truth = np.r_[np.zeros(len(usual)), np.ones(len(unusual))]
        known = ~np.isnan(scores)
        found[factor * components, axes] = float(roc_auc_score(truth[known], scores[known]))
    return max(found, key=lambda choice: found[choice])
