"""What a model's answer says of how sure it was: two scalars a row, each suspicious in both directions.

Weak attacks leave a model unsure, strong ones make it over-confident: entropy alone goes the wrong way on the latter.
"""

from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["OUTPUT", "OUTPUT_SCORES", "output_scores"]

OUTPUT: Final = "(output)"
"""The name under which these stand among the layers; no module can have it."""

OUTPUT_SCORES: Final = ("entropy", "certainty", "doubt", "confidence")
"""Entropy and its negative, the odds against the answer and for it: in the order of `output_scores`."""

TINY: Final = 1e-30


def output_scores(probabilities: NDArray[np.floating], device: torch.device) -> Float[Tensor, "4 m"]:
    """From class probabilities `[m, C]`. The odds are taken from the other classes' sum: one less the largest would
    round to nothing exactly where a strong attack puts it."""
    P = torch.from_numpy(np.ascontiguousarray(probabilities)).to(device, torch.float64)
    entropy = -(P * P.clamp(min=TINY).log()).sum(1)
    largest, place = P.max(1, keepdim=True)
    others = P.scatter(1, place, 0.0).sum(1)
    doubt = others.clamp(min=TINY).log() - largest[:, 0].clamp(min=TINY).log()
    return torch.stack([entropy, -entropy, doubt, -doubt])
