"""`SampleDetectors`: everything that judges single rows, fitted for one reference. Fitting lives in `fitting.py`.

Plain library calls on frames, batched, on any device; no broker and no clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hydrophone.detectors.samples.attribution import AttackForest
from hydrophone.detectors.samples.density import ClassDensity
from hydrophone.detectors.samples.gate import Gate
from hydrophone.detectors.samples.layers import LayerCloseness
from hydrophone.detectors.samples.manifest import SampleManifest
from hydrophone.detectors.samples.quick_gate import QuickMixture
from hydrophone.detectors.samples.rows import Rows
from hydrophone.detectors.samples.scaling import strata_of
from hydrophone.detectors.samples.seam import (
    ABSTAIN,
    ACCEPT,
    REJECT,
    AttackGuess,
    GateAnswer,
    SampleDetector,
    SampleVerdicts,
)
from hydrophone.detectors.samples.suspicion import Suspicion
from hydrophone.detectors.samples.uncertainty import Uncertainty
from hydrophone.schemas.frame import Frame

__all__ = ["Measuring", "SampleDetectors"]

UTMOST: Final = 1e30
"""Of a measure: weights times infinity would be no number."""


@dataclass(frozen=True)
class Measuring:
    """The detectors, from which each row gets its measures."""

    uncertainty: Uncertainty
    layers: LayerCloseness
    density: ClassDensity | None
    gate: Gate

    @property
    def detectors(self) -> tuple[SampleDetector, ...]:
        some: tuple[SampleDetector | None, ...] = (self.uncertainty, self.density, self.layers, self.gate)
        return tuple(detector for detector in some if detector is not None)

    def measures(self) -> tuple[str, ...]:
        return tuple(name for detector in self.detectors for name in detector.measures())

    def scores(self, rows: Rows) -> dict[str, NDArray[np.float64]]:
        return {name: values for detector in self.detectors for name, values in detector.score(rows).items()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        parts: dict[str, SampleDetector | None] = {"layers": self.layers, "density": self.density, "gate": self.gate}
        return {
            f"{name}/{key}": array
            for name, part in parts.items()
            if part is not None
            for key, array in part.arrays().items()
        }


class SampleDetectors:
    """Immutable; threads may share it."""

    def __init__(
        self,
        manifest: SampleManifest,
        model: str,
        measuring: Measuring,
        suspicion: Suspicion,
        gate_rank: Suspicion,
        forest: AttackForest | None,
        device: torch.device,
    ) -> None:
        self.manifest, self.model, self._device = manifest, model, device
        self._measuring, self._suspicion, self._forest = measuring, suspicion, forest
        self._gate_rank = gate_rank
        known = manifest.classes
        self._classes = None if known is None else np.array(known, np.int64)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures; a verdict's scores hold `gate.p_value` besides."""
        return self._measuring.measures()

    @property
    def forest(self) -> AttackForest | None:
        return self._forest

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All but the forest."""
        ranks = {"suspicion": self._suspicion, "gate-rank": self._gate_rank}
        parts = {f"{part}/{key}": array for part, rank in ranks.items() for key, array in rank.arrays().items()}
        return self._measuring.arrays() | parts

    def described(self, manifest: SampleManifest) -> "SampleDetectors":
        """The same detectors under another manifest of theirs."""
        return SampleDetectors(
            manifest, self.model, self._measuring, self._suspicion, self._gate_rank, self._forest, self._device
        )

    def judge(self, frame: Frame) -> SampleVerdicts:
        """A verdict for each row. Never raises for what a frame holds or lacks: the reasons name it."""
        rows = Rows(frame, self._device)
        scores = self._scores(rows)
        scores["gate.p_value"] = self._gate_p_values(scores)
        measured = np.column_stack([scores[name] for name in self.manifest.measures]).clip(-UTMOST, UTMOST)
        suspicion = self._suspicion(measured)
        p_values = self._suspicion.p_values(measured, suspicion)
        decision = self._decisions(p_values)
        attacks = self._guesses(rows, scores, np.flatnonzero(decision != ACCEPT))
        return SampleVerdicts(
            decision=decision,
            suspicion=suspicion.astype(np.float32),
            p_value=p_values.astype(np.float32),
            scores={name: values.astype(np.float32) for name, values in scores.items()},
            attacks=attacks,
            reasons=rows.reasons(),
        )

    def gate(self, frame: Frame) -> GateAnswer:
        """Whether each row is of the kind the model was made for: the gate alone, for a service that asks first."""
        rows = Rows(frame, self._device)
        if frame.model != self.model:
            rows.note(f"wrong_model:{frame.model}")
            scores = {name: np.full(len(rows), np.nan) for name in self._measuring.gate.measures()}
        else:
            scores = dict(self._measuring.gate.score(rows))
        p_values = self._gate_p_values(scores)
        return GateAnswer(
            accepted=p_values > self.manifest.gate_level,
            log_likelihood=scores[f"gate.log_likelihood.{self.manifest.embedding}"].astype(np.float32),
            p_value=p_values.astype(np.float32),
            reasons=rows.reasons(),
        )

    def _gate_p_values(self, scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        measured = np.column_stack([scores[name] for name in self._measuring.gate.measures()]).clip(-UTMOST, UTMOST)
        return self._gate_rank.p_values(measured, self._gate_rank(measured))

    def gate_p_values(self, log_likelihoods: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The gate's p-values of rows whose log-likelihoods some layers gave; NaN where none did. A row is ranked among
        clean rows by the layers that it has."""
        rows = len(next(iter(log_likelihoods.values()), ()))
        missing = np.full(rows, np.nan)
        return self._gate_p_values(
            {f"gate.log_likelihood.{name}": log_likelihoods.get(name, missing) for name in self.gated_layers}
        )

    def quick_mixture(self, layer: str) -> QuickMixture:
        """The gate of one layer, for a handful of rows at a time."""
        return QuickMixture.of(self._measuring.gate.mixtures[layer])

    @property
    def gated_layers(self) -> tuple[str, ...]:
        """Layers with a mixture, the embedding first."""
        return tuple(self._measuring.gate.mixtures)

    def clean_log_likelihoods(self, layer: str) -> NDArray[np.float64]:
        """The gate's of the natural rows that nothing was fitted on."""
        return self._suspicion.calibration[:, self.manifest.measures.index(f"gate.log_likelihood.{layer}")]

    def _scores(self, rows: Rows) -> dict[str, NDArray[np.float64]]:
        if rows.frame.model != self.model:
            rows.note(f"wrong_model:{rows.frame.model}")
            return {name: np.full(len(rows), np.nan) for name in self.measures}
        scores = self._measuring.scores(rows)
        for name in self.manifest.constant:
            rows.note(f"constant_at_fit:{name}")
        self._note_unseen(rows)
        return scores

    def _note_unseen(self, rows: Rows) -> None:
        predicted = rows.frame.classes()
        if self._classes is None or predicted is None:
            return
        unseen = strata_of(predicted, self._classes) < 0
        for name in np.unique(predicted[unseen]):
            rows.note(f"unseen_class:{name}", predicted == name)

    def _decisions(self, p_values: NDArray[np.float64]) -> NDArray[np.int8]:
        found = np.full(len(p_values), ACCEPT, np.int8)
        found[~(p_values > self.manifest.abstain_level)] = ABSTAIN  # NaN too: nothing was judged
        found[p_values <= self.manifest.reject_level] = REJECT
        return found

    def _guesses(
        self, rows: Rows, scores: Mapping[str, NDArray[np.float64]], flagged: NDArray[np.intp]
    ) -> Sequence[AttackGuess | None]:
        found: list[AttackGuess | None] = [None] * len(rows)
        if self._forest is None or not flagged.size:
            return found
        features = self._forest.features(rows, scores, flagged)
        if features is None:
            rows.note("no_attribution", _among(flagged, len(rows)))
            return found
        whole = ~np.isnan(features).any(1)
        if not whole.all():
            rows.note("no_attribution", _among(flagged[~whole], len(rows)))
        guesses = self._forest.guesses(features[whole], self.manifest)
        for row, guess in zip(flagged[whole], guesses, strict=True):
            found[row] = guess
        return found


def _among(rows: NDArray[np.intp], m: int) -> NDArray[np.bool_]:
    mask = np.zeros(m, np.bool_)
    mask[rows] = True
    return mask
