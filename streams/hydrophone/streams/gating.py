"""A gate in the service itself: is an input like those the model was made for? Asked before the model answers.

In-process and without a broker; what the processor says of the same rows later is in `verdicts.py`. The mixtures are
those of the reference's per-sample detectors (`detectors/samples/gate.py`).
"""

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
        self._samples, self._reject = samples, reject
        self._mixtures = {name: samples.quick_mixture(name) for name in samples.gated_layers}

    @property
    def layers(self) -> tuple[str, ...]:
        """What it can be asked about: the embedding first, then its companions."""
        return tuple(self._mixtures)

    def ask(self, layers: Mapping[str, NDArray[Any] | Tensor]) -> GateAnswer:
        """About rows, by what some of the layers put out for them: arrays `[m, D]`, or tensors as the tap would see
        them (maps are averaged over space). More layers tell more: uniform noise passes the last and not the first.
        With all of them p is the `gate.p_value` of a verdict on the same rows.

        Raises `SettingsError` where no layer is one of `layers`, or they disagree about how many rows there are.
        """
        known = {name: _matrix(layers[name]) for name in self._mixtures if name in layers}
        rows = {len(values) for values in known.values()}
        if len(rows) != 1:
            shapes = {name: list(np.shape(values)) for name, values in layers.items()}
            raise SettingsError(f"`layers` must bring some of {list(self.layers)}, of as many rows each; got {shapes}")
        m = rows.pop()
        reasons: list[tuple[str, ...]] = [()] * m
        found: dict[str, NDArray[np.float64]] = {}
        is_bad = np.zeros(m, np.bool_)
        for name, values in known.items():
            mixture = self._mixtures[name]
            if values.shape[1] != mixture.width:
                found[name] = np.full(m, np.nan)
                reasons = [(*said, f"wrong_dimension:layer.{name}") for said in reasons]
                continue
            found[name] = mixture(values)
            bad = ~np.isfinite(found[name])
            found[name][bad] = np.nan
            is_bad |= bad
            for row in bad.nonzero()[0].tolist():
                reasons[row] = (*reasons[row], f"not_finite:layer.{name}")
        p_value = self._samples.gate_p_values(found)
        p_value[is_bad] = np.nan  # half a row is not looked at
        return GateAnswer(p_value > self._reject, p_value, found, reasons)


def gate(reference: Reference | str | Path, *, reject: float | None = None, device: str = "cpu") -> Gate:
    """A gate from a reference, or the folder of one. About `reject` of clean rows are turned away, whatever layers it
    is asked about, up to the error of the rows it was calibrated with; by default the share chosen at fitting.

    Raises `ReferenceInvalid` where the reference has no per-sample detectors.
    """
    if reject is not None and not 0 < reject < 1:
        raise SettingsError(f"`reject` must lie between 0 and 1; got {reject}")
    loaded = reference if isinstance(reference, Reference) else Reference.load(reference, device=device)
    if loaded.samples is None:
        raise ReferenceInvalid(
            f"reference `{loaded.manifest.version}` of `{loaded.manifest.model}` has no per-sample detectors, so no "
            "gate: fit it with them (docs/samples.md)"
        )
    return Gate(loaded.samples, reject=loaded.samples.manifest.gate_level if reject is None else reject)


def _matrix(values: NDArray[Any] | Tensor) -> NDArray[np.float32]:
    if isinstance(values, Tensor):
        found: NDArray[np.float32] = pooled(ANY_MODULE, values.detach()).to("cpu", torch.float32).numpy()
        return found
    array = np.asarray(values, np.float32)
    return array if array.ndim == 2 else array.reshape(len(array), -1)
