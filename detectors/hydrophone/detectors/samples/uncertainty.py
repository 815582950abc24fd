"""How unsure the model was: the four measures of MC dropout, or what one pass tells. Nothing is fitted.

Tuna, Catak & Eskil (arXiv 2012.06390), after Gal & Ghahramani. As printed there, equation 8 makes mutual information
exceed the entropy; it is the entropy less the mean entropy of the passes: 0 <= MI <= entropy <= ln C.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from hydrophone.detectors.samples.rows import MEASURES, Rows

__all__ = ["Uncertainty", "mc_measures"]

TINY: Final = 1e-30
PLAIN: Final = ("output.entropy", "output.doubt")
"""Of one pass: entropy, and the log odds against the answer."""


def mc_measures(passes: Float[Tensor, "T m C"]) -> dict[str, Float[Tensor, " m"]]:
    """The four measures of T stochastic passes' class probabilities, in float64.

    `variance` is the mean over classes of the variance over passes; `confidence` is the mean's largest probability.
    The order of inequalities holds to the last bit: rounding must not make a measure impossible.
    """
    P = passes.double()
    mean = P.mean(0)
    entropy = _entropy(mean).clamp(0.0, math.log(P.shape[2]))
    expected = _entropy(P).mean(0)
    mutual = torch.minimum((entropy - expected).clamp(min=0.0), entropy)
    return {
        "variance": P.var(0, correction=0).mean(1),
        "entropy": entropy,
        "mutual_information": mutual,
        "confidence": mean.max(1).values,
    }


def _entropy(P: Tensor) -> Tensor:
    return -(P * P.clamp(min=TINY).log()).sum(-1)


class Uncertainty:
    """Reads what the frames bring: MC-dropout measures where the reference's did, and the output's own."""

    def __init__(self, measures: Sequence[str], classes: int | None) -> None:
        self._measures, self._classes = tuple(measures), classes

    @classmethod
    def fit(cls, rows: Rows) -> "Uncertainty":
        brought = tuple(name for name in MEASURES if name in (rows.frame.uncertainty or {}))
        output = rows.frame.output
        return cls(brought, None if output is None else output.shape[1])

    def measures(self) -> tuple[str, ...]:
        plain = () if self._classes is None else PLAIN
        return (*(f"uncertainty.{name}" for name in self._measures), *plain)

    def score(self, rows: Rows) -> Mapping[str, NDArray[np.float64]]:
        missing = np.full(len(rows), np.nan)
        found = {}
        for name in self._measures:
            values = rows.measure(name)
            found[f"uncertainty.{name}"] = missing if values is None else values
        return found | self._plain(rows)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return {}

    def _plain(self, rows: Rows) -> dict[str, NDArray[np.float64]]:
        if self._classes is None:
            return {}
        P = rows.output(self._classes)
        if P is None:
            return {name: np.full(len(rows), np.nan) for name in PLAIN}
        P = P.double()
        largest, place = P.max(1, keepdim=True)
        # From the others' sum: one less the largest would round to nothing where a strong attack puts it.
        others = P.scatter(1, place, 0.0).sum(1)
        doubt = others.clamp(min=TINY).log() - largest[:, 0].clamp(min=TINY).log()
        found = dict(zip(PLAIN, (_entropy(P).cpu().numpy(), doubt.cpu().numpy()), strict=True))
        bad = rows.bad("output")
        if bad is not None:
            for values in found.values():
                values[bad] = np.nan
        return found
