"""How far a row lies, layer by layer, from the rows of its predicted class: the measures of `detectors/closeness.py`.

Strong attacks sit inside the target's class in the last layers; the early ones still see them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hydrophone.detectors.closeness import CLOSENESS, Closeness
from hydrophone.detectors.samples.rows import Rows
from hydrophone.detectors.samples.scaling import Scale, strata_of

__all__ = ["LayerCloseness"]


@dataclass(frozen=True)
class LayerCloseness:
    """Of several layers. Where rows have no predicted class, all are of one."""

    scales: Mapping[str, Scale]
    closeness: Mapping[str, Closeness]
    classes: NDArray[np.int64] | None

    @classmethod
    def fit(cls, rows: Rows, layers: Sequence[str], classes: NDArray[np.int64] | None) -> "LayerCloseness":
        """On natural rows, all finite. `classes` are those with rows enough."""
        predicted = rows.classes() if classes is not None else None
        strata = np.zeros(len(rows), np.int64) if predicted is None else strata_of(predicted, _given(classes))
        kept = strata >= 0
        scales, closeness = {}, {}
        for name in layers:
            values = rows.layer(name, rows.frame.layers[name].shape[1])
            assert values is not None, "a layer that is fitted on is there"
            scales[name] = Scale.fit(values)
            scaled = scales[name](values).cpu().numpy()
            count = 1 if classes is None else len(classes)
            fitted = Closeness.fit(scaled[kept], strata[kept], count)
            closeness[name] = Closeness.load(fitted.arrays(), rows.device)
        return cls(scales, closeness, classes)

    @classmethod
    def load(
        cls, arrays: Mapping[str, Mapping[str, NDArray[Any]]], classes: NDArray[np.int64] | None, device: torch.device
    ) -> "LayerCloseness":
        scales = {name: Scale.load(parts, device) for name, parts in arrays.items()}
        return cls(scales, {name: Closeness.load(parts, device) for name, parts in arrays.items()}, classes)

    def measures(self) -> tuple[str, ...]:
        return tuple(f"closeness.{measure}.{name}" for name in self.scales for measure in CLOSENESS)

    def score(self, rows: Rows) -> Mapping[str, NDArray[np.float64]]:
        found = {name: np.full(len(rows), np.nan) for name in self.measures()}
        strata = self._strata(rows)
        if strata is None:
            return found
        known = torch.from_numpy(strata.clip(min=0)).to(rows.device)
        for name, scale in self.scales.items():
            values = rows.layer(name, len(scale.mean))
            if values is None:
                continue
            scores = self.closeness[name](scale(values), known).cpu().numpy()
            bad = rows.bad(f"layer.{name}")
            for measure, column in zip(CLOSENESS, scores, strict=True):
                unknown = strata < 0 if bad is None else (strata < 0) | bad
                found[f"closeness.{measure}.{name}"] = np.where(unknown, np.nan, column)
        return found

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for name in self.scales:
            parts = self.scales[name].arrays() | self.closeness[name].arrays()
            found |= {f"{name}.{part}": array for part, array in parts.items()}
        return found

    def _strata(self, rows: Rows) -> NDArray[np.int64] | None:
        if self.classes is None:
            return np.zeros(len(rows), np.int64)
        predicted = rows.classes()
        return None if predicted is None else strata_of(predicted, self.classes)


def _given(classes: NDArray[np.int64] | None) -> NDArray[np.int64]:
    assert classes is not None, "rows with predicted classes are fitted on some"
    return classes
