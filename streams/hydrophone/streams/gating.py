"""A gate in the service itself: is an input like those the model was made for? Asked before the model answers.

In-process and without a broker; what the processor says of the same rows later is in `verdicts.py`. The mixtures are
those of the reference's per-sample detectors (`detectors/samples/gate.py`).
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hydrophone.detectors import Reference
from hydrophone.detectors.samples import SampleDetectors
from hydrophone.schemas.errors import ReferenceInvalid, SettingsError
from hydrophone.streams.capture import pooled

__all__ = ["Gate", "GateAnswer", "gate"]

ANY_MODULE: Final = nn.Identity()


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """Arrays over the rows asked about. `p_value`: share of clean rows as unlike the others, never 0; a row is accepted
    where it is above the gate's level. `log_likelihood` by layer. `reasons`: what could not be looked at, and why; a
    row of which nothing could be is not accepted."""

    accepted: NDArray[np.bool_]
    p_value: NDArray[np.float64]
    log_likelihood: Mapping[str, NDArray[np.float64]]
    reasons: Sequence[tuple[str, ...]]


class Gate:
    """Threads may share it. Made by `gate`."""

    def __init__(self, samples: SampleDetectors, *, reject: float) -> None:
        self._reject = reject
        self._mixtures = {name: samples.quick_mixture(name) for name in samples.gated_layers}
        clean = {name: samples.clean_log_likelihoods(name) for name in samples.gated_layers}
        self._ranked = {name: np.sort(values) for name, values in clean.items()}
        self._rarity = {name: _ranks(self._ranked[name], values) for name, values in clean.items()}
        self._nulls: dict[frozenset[str], NDArray[np.float64]] = {}
        self._turn = threading.Lock()

    @property
    def layers(self) -> tuple[str, ...]:
        """What it can be asked about: the embedding first, then its companions."""
        return tuple(self._ranked)

    def ask(self, layers: Mapping[str, NDArray[Any] | Tensor]) -> GateAnswer:
        """About rows, by what some of the layers put out for them: arrays `[m, D]`, or tensors as the tap would see
        them (maps are averaged over space). More layers tell more: uniform noise passes the last and not the first.

        Raises `SettingsError` where no layer is one of `layers`, or they disagree about how many rows there are.
        """
        known = {name: _matrix(layers[name]) for name in self._ranked if name in layers}
        rows = {len(values) for values in known.values()}
        if len(rows) != 1:
            shapes = {name: list(np.shape(values)) for name, values in layers.items()}
            raise SettingsError(f"`layers` must bring some of {list(self._ranked)}, of as many rows each; got {shapes}")
        reasons: list[tuple[str, ...]] = [()] * rows.pop()
        found: dict[str, NDArray[np.float64]] = {}
        rarities: dict[str, NDArray[np.float64]] = {}
        for name, values in known.items():
            mixture = self._mixtures[name]
            if values.shape[1] != mixture.width:
                found[name] = np.full(len(values), np.nan)
                reasons = [(*said, f"wrong_dimension:layer.{name}") for said in reasons]
                continue
            found[name] = mixture(values)
            rarities[name] = _ranks(self._ranked[name], found[name], is_new=True)
            for row in (~np.isfinite(found[name])).nonzero()[0].tolist():
                reasons[row] = (*reasons[row], f"not_finite:layer.{name}")
                rarities[name][row] = found[name][row] = np.nan
        p_value = self._p_values(rarities, len(reasons))
        return GateAnswer(p_value > self._reject, p_value, found, reasons)

    def _p_values(self, rarities: Mapping[str, NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
        """The smallest rank over the layers, ranked among what clean rows have for a smallest; NaN where a layer was
        asked about and had no number: half a row is not looked at."""
        if not rarities:
            return np.full(rows, np.nan)
        null = self._null(frozenset(rarities))
        smallest = np.min(list(rarities.values()), axis=0)
        p_values = (1 + np.searchsorted(null, smallest, side="right")) / (len(null) + 1)
        return np.where(np.isnan(smallest), np.nan, p_values)

    def _null(self, names: frozenset[str]) -> NDArray[np.float64]:
        with self._turn:
            if names not in self._nulls:
                self._nulls[names] = np.sort(np.min([self._rarity[name] for name in names], axis=0))
            return self._nulls[names]


def gate(reference: Reference | str | Path, *, reject: float = 0.05, device: str = "cpu") -> Gate:
    """A gate from a reference, or the folder of one. About `reject` of clean rows are turned away, whatever layers it
    is asked about, up to the error of the rows it was calibrated with.

    Raises `ReferenceInvalid` where the reference has no per-sample detectors.
    """
    if not 0 < reject < 1:
        raise SettingsError(f"`reject` must lie between 0 and 1; got {reject}")
    loaded = reference if isinstance(reference, Reference) else Reference.load(reference, device=device)
    if loaded.samples is None:
        raise ReferenceInvalid(
            f"reference `{loaded.manifest.version}` of `{loaded.manifest.model}` has no per-sample detectors, so no "
            "gate: fit it with them (docs/samples.md)"
        )
    return Gate(loaded.samples, reject=reject)


def _ranks(ranked: NDArray[np.float64], values: NDArray[np.float64], *, is_new: bool = False) -> NDArray[np.float64]:
    """Share of clean rows as unlikely, the row itself among them."""
    return (is_new + np.searchsorted(ranked, values, side="right")) / (len(ranked) + 1)


def _matrix(values: NDArray[Any] | Tensor) -> NDArray[np.float32]:
    if isinstance(values, Tensor):
        found: NDArray[np.float32] = pooled(ANY_MODULE, values.detach()).to("cpu", torch.float32).numpy()
        return found
    array = np.asarray(values, np.float32)
    return array if array.ndim == 2 else array.reshape(len(array), -1)
