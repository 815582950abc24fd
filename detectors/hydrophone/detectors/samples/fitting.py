"""Natural frames, and labelled ones where there are any, to `SampleDetectors`: who is fitted on which rows.

Natural rows play three parts, each row one of them: densities are made of some, the tails of their measures (and the
clean side of a regression) come from others, and p-values rank among the rest. Measured: with rows of the density among
those ranked, each its own neighbour, 70 to 92 % of clean windows of 500 alarmed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from hydrophone.detectors.device import resolve_device
from hydrophone.detectors.samples.attribution import NATURAL, AttackForest, attack_table
from hydrophone.detectors.samples.density import ClassDensity
from hydrophone.detectors.samples.family import Measuring, SampleDetectors
from hydrophone.detectors.samples.gate import AXES, Gate
from hydrophone.detectors.samples.labelled import Labelled, check_natural, family_of, labelled_rows
from hydrophone.detectors.samples.layers import LayerCloseness
from hydrophone.detectors.samples.manifest import SampleManifest, SampleSizes
from hydrophone.detectors.samples.rows import MEASURES, Rows
from hydrophone.detectors.samples.suspicion import (
    Suspicion,
    centred,
    group_weights,
    regression_weights,
    tails,
)
from hydrophone.detectors.samples.tuning import tuned
from hydrophone.detectors.samples.uncertainty import Uncertainty
from hydrophone.schemas.errors import FrameInvalid, ReferenceInvalid
from hydrophone.schemas.frame import Frame, concat

__all__ = ["Parts", "fit_samples"]

MIN_ROWS: Final = 400
"""Natural rows needed in all: fewer rank no p-value of 1 %."""

DENSITY_SHARE: Final = 0.5
RANKS_SHARE: Final = 0.25
LEAST_CLASS_ROWS: Final = 20
HELD_OUT: Final = 0.3
PRECISION: Final = 0.8
"""Share of the names given to held-out attacks that must be right."""

CONFIDENCE_Z: Final = 1.64


@dataclass(frozen=True)
class Parts:
    """Disjoint rows, by their place among the natural ones."""

    density: NDArray[np.intp]
    ranks: NDArray[np.intp]
    calibration: NDArray[np.intp]

    @classmethod
    def draw(cls, rows: int, seed: int) -> "Parts":
        """Shuffled first: the order of files is not exchangeable."""
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, rows]))).permutation(rows)
        first, second = round(rows * DENSITY_SHARE), round(rows * (DENSITY_SHARE + RANKS_SHARE))
        return cls(order[:first], order[first:second], order[second:])


def fit_samples(
    frames: Iterable[Frame],
    *,
    labelled: Iterable[Frame] | None = None,
    outside: Iterable[Frame] | None = None,
    embedding: str | None = None,
    families: Mapping[str, str] | None = None,
    accuracy: float | None = None,
    components: int | None = None,
    axes: int = AXES,
    abstain_level: float = 0.05,
    reject_level: float = 0.01,
    seed: int = 0,
    device: str = "auto",
) -> SampleDetectors:
    """Fit on natural traffic, rows with a label other than 0 left out; with `labelled`, on attacks too.

    `outside` are inputs the model is not for, an uninformed user's near misses among them: they tune the gate.
    `embedding` is the last hidden layer; by default the one in which predicted classes lie farthest apart. `accuracy`
    is the model's own on clean inputs, to be checked. Raises `ReferenceInvalid` naming the rule that the rows break.
    """
    if not 0 < reject_level <= abstain_level < 1:
        raise ReferenceInvalid(
            f"levels must hold 0 < `reject_level` <= `abstain_level` < 1; got {reject_level} and {abstain_level}"
        )
    on = resolve_device(device)
    known = None if labelled is None else _labelled(list(labelled))
    natural, excluded_bad, excluded_shared = _natural(list(frames), known)
    check_natural(natural, accuracy)
    parts = Parts.draw(len(natural), seed)
    if reject_level < 1 / (len(parts.calibration) + 1):
        raise ReferenceInvalid(
            f"`reject_level` {reject_level} needs {int(np.ceil(1 / reject_level)) - 1} calibration rows, a quarter of "
            f"the natural ones; got {len(parts.calibration)}: record more or ask for a higher level"
        )
    layers = natural.layers if known is None else [name for name in natural.layers if name in known.frame.layers]
    embedding = embedding or embedding_of(natural.take(parts.density), list(layers))
    if embedding not in layers:
        raise ReferenceInvalid(f"`embedding` must be a layer that all frames bring, {sorted(layers)}; got {embedding}")
    density = natural.take(parts.density)
    order = [embedding, *(name for name in sorted(layers) if name != embedding)]
    classes = _classes(density)
    components = components or _components(classes)
    if outside is not None:
        strange = _joined(list(outside), "outside")
        components, axes = tuned(density, natural.take(parts.ranks), strange, order, components, seed=seed, device=on)
    measuring = measure_with(density, order, classes, components=components, axes=axes, seed=seed, device=on)
    return _Fitting(natural, parts, known, measuring, families, on).detectors(
        SampleManifest(
            layers={name: natural.layers[name].shape[1] for name in order},
            embedding=embedding,
            output_classes=None if natural.output is None else natural.output.shape[1],
            uncertainty=tuple(name for name in MEASURES if name in (natural.uncertainty or {})),
            classes=None if classes is None else tuple(int(name) for name in classes),
            measures=(),
            branches=(),
            components=components,
            axes=axes,
            abstain_level=abstain_level,
            reject_level=reject_level,
            seed=seed,
            sizes=SampleSizes(
                density=len(parts.density),
                ranks=len(parts.ranks),
                calibration=len(parts.calibration),
                excluded_bad=excluded_bad,
                excluded_shared=excluded_shared,
            ),
        )
    )


def measure_with(
    density: Frame,
    layers: list[str],
    classes: NDArray[np.int64] | None,
    *,
    components: int,
    axes: int,
    seed: int,
    device: torch.device,
) -> Measuring:
    """All detectors, the first of `layers` being the embedding."""
    rows = Rows(density, device)
    return Measuring(
        Uncertainty.fit(rows),
        LayerCloseness.fit(rows, layers, classes),
        None if classes is None else ClassDensity.fit(rows, layers[0], classes),
        Gate.fit(rows, layers, components=components, axes=axes, seed=seed),
    )


class _Fitting:
    """What comes after the densities: tails, weights, forest, thresholds."""

    def __init__(
        self,
        natural: Frame,
        parts: Parts,
        labelled: Labelled | None,
        measuring: Measuring,
        families: Mapping[str, str] | None,
        device: torch.device,
    ) -> None:
        self.natural, self.labelled, self.families = natural, labelled, families
        self.measuring, self.device = measuring, device
        self.ranks, self.calibration = natural.take(parts.ranks), natural.take(parts.calibration)

    def detectors(self, manifest: SampleManifest) -> SampleDetectors:
        names = self.measuring.measures()
        ranks = self._scores(self.ranks)
        constant = tuple(name for name in names if np.nanstd(ranks[name]) == 0 or np.isnan(ranks[name]).all())
        measures = tuple(name for name in names if name not in constant)
        if not measures:
            raise ReferenceInvalid("every measure is constant on natural rows: there is nothing to rank a row by")
        kept = _table(ranks, measures)
        kept = kept[~np.isnan(kept).any(1)]
        calibration = _table(self._scores(self.calibration), measures)
        groups = group_weights(measures)
        if self.labelled is None:
            suspicion = Suspicion.fit(kept, np.stack(list(groups.values())), calibration)
            found = manifest.model_copy(update={"measures": measures, "constant": constant, "branches": tuple(groups)})
            return SampleDetectors(
                found, self.natural.model, self.measuring, suspicion, self._gate_rank(), None, self.device
            )
        return self._with_attacks(manifest, measures, constant, kept, calibration, groups, self.labelled)

    def _with_attacks(
        self,
        manifest: SampleManifest,
        measures: tuple[str, ...],
        constant: tuple[str, ...],
        ranks: NDArray[np.float64],
        calibration: NDArray[np.float64],
        groups: Mapping[str, NDArray[np.float64]],
        labelled: Labelled,
    ) -> SampleDetectors:
        held = labelled.held_out(HELD_OUT, manifest.seed)
        seen, unseen = labelled.take(~held), labelled.take(held)
        scores, aside = self._scores(seen.frame), self._scores(unseen.frame)
        upper, lower, centre = tails(ranks)
        table = np.vstack([ranks, _table(scores, measures)])
        hostile = np.r_[np.zeros(len(ranks), bool), seen.is_hostile]
        learnt = regression_weights(centred(upper, lower, centre, table), hostile)
        branches = {"regression": learnt, **({"gate": groups["gate"]} if "gate" in groups else {})}
        suspicion = Suspicion.fit(ranks, np.stack(list(branches.values())), calibration)
        attacks = {str(name): family_of(str(name), self.families) for name in sorted({*seen.attacks[seen.is_hostile]})}
        found = manifest.model_copy(
            update={
                "measures": measures,
                "constant": constant,
                "branches": tuple(branches),
                "attacks": attacks,
                "held_out_auc": _held_out_auc(suspicion, _table(aside, measures), unseen),
                "sizes": manifest.sizes.model_copy(update={"labelled": len(seen.frame), "held_out": len(unseen.frame)}),
            }
        )
        forest = self._forest(found, seen, scores)
        found = found.model_copy(update=self._thresholds(forest, found, unseen, aside))
        return SampleDetectors(
            found, self.natural.model, self.measuring, suspicion, self._gate_rank(), forest, self.device
        )

    def _forest(
        self, manifest: SampleManifest, seen: Labelled, scores: Mapping[str, NDArray[np.float64]]
    ) -> AttackForest:
        width = manifest.layers[manifest.embedding]
        empty = AttackForest(None, manifest.embedding, width, manifest.output_classes, manifest.measures)
        features = empty.features(Rows(seen.frame, self.device), scores, np.arange(len(seen.frame)))
        clean = empty.features(Rows(self.ranks, self.device), self._scores(self.ranks), np.arange(len(self.ranks)))
        assert features is not None and clean is not None, "rows that are fitted on bring what they need"  # noqa: PT018
        both = np.vstack([features, clean])
        names = np.array([*(name or NATURAL for name in seen.attacks), *[NATURAL] * len(clean)])
        whole = ~np.isnan(both).any(1)
        return empty.fitted(both[whole], names[whole], seed=manifest.seed)

    def _thresholds(
        self,
        forest: AttackForest,
        manifest: SampleManifest,
        unseen: Labelled,
        scores: Mapping[str, NDArray[np.float64]],
    ) -> dict[str, float | None]:
        hostile = np.flatnonzero(unseen.is_hostile)
        features = forest.features(Rows(unseen.frame, self.device), scores, hostile)
        if features is None or not len(hostile):
            return {}
        whole = ~np.isnan(features).any(1)
        P, names = forest.probabilities(features[whole])
        table = attack_table(P, names, manifest.attacks)
        truth = unseen.attacks[hostile][whole]
        families = np.array([row[0] == manifest.attacks.get(name) for row, name in zip(table, truth, strict=True)])
        attacks = np.array([row[2] == name for row, name in zip(table, truth, strict=True)])
        return {
            "family_threshold": least_threshold(np.array([row[1] for row in table]), families),
            "attack_threshold": least_threshold(np.array([row[3] for row in table]), attacks),
        }

    def _gate_rank(self) -> Suspicion:
        """The gate by itself: the mean rarity of a row's likelihoods over layers."""
        names = self.measuring.gate.measures()
        ranks, calibration = (_table(self._scores(part), names) for part in (self.ranks, self.calibration))
        return Suspicion.fit(ranks, group_weights(names)["gate"][None], calibration)

    def _scores(self, frame: Frame) -> dict[str, NDArray[np.float64]]:
        return self.measuring.scores(Rows(frame, self.device))


def least_threshold(probability: NDArray[np.float64], is_right: NDArray[np.bool_]) -> float | None:
    """The least probability above which held-out names are right often enough, at the lower bound of a 95 % one-sided
    Wilson interval; None where there is none."""
    order = np.argsort(-probability, kind="stable")
    n = np.arange(1, len(order) + 1)
    rate = np.cumsum(is_right[order]) / n
    z2 = CONFIDENCE_Z**2
    half = CONFIDENCE_Z * np.sqrt(rate * (1 - rate) / n + z2 / (4 * n**2))
    good = np.flatnonzero((rate + z2 / (2 * n) - half) / (1 + z2 / n) >= PRECISION)
    return float(probability[order[good[-1]]]) if good.size else None


def embedding_of(rows: Frame, layers: list[str]) -> str:
    """The layer in which predicted classes lie farthest apart for their spread, the class scores themselves left out;
    without predicted classes, the widest."""
    predicted = rows.classes()
    C = None if rows.output is None else rows.output.shape[1]
    hidden = [name for name in layers if rows.layers[name].shape[1] != C] or layers
    if predicted is None:
        return max(hidden, key=lambda name: rows.layers[name].shape[1])
    return max(hidden, key=lambda name: _separation(rows.layers[name].astype(np.float64), predicted))


def _separation(values: NDArray[np.float64], classes: NDArray[np.int64]) -> float:
    total = values.var(0).sum()
    if not total > 0:
        return 0.0
    within = sum(values[classes == name].var(0).sum() * (classes == name).mean() for name in np.unique(classes))
    return float(1 - within / total)


def _classes(density: Frame) -> NDArray[np.int64] | None:
    predicted = density.classes()
    if predicted is None:
        return None
    names, counts = np.unique(predicted, return_counts=True)
    kept = names[counts >= LEAST_CLASS_ROWS]
    return kept if kept.size else None


def _components(classes: NDArray[np.int64] | None) -> int:
    """As many as there are classes, as the gate's document has it."""
    return 1 if classes is None else min(len(classes), 32)


def _table(scores: Mapping[str, NDArray[np.float64]], measures: tuple[str, ...]) -> NDArray[np.float64]:
    return np.column_stack([scores[name] for name in measures])


def _held_out_auc(suspicion: Suspicion, measures: NDArray[np.float64], unseen: Labelled) -> dict[str, float]:
    """Against the held-out rows that are no attack; nothing where there are none."""
    found = suspicion(measures)
    clean = ~unseen.is_hostile & ~np.isnan(found)
    result = {}
    for name in sorted({*unseen.attacks[unseen.is_hostile]}):
        rows = (unseen.attacks == name) & ~np.isnan(found)
        if clean.any() and rows.any():
            truth = np.r_[np.ones(int(rows.sum())), np.zeros(int(clean.sum()))]
            result[str(name)] = round(float(roc_auc_score(truth, np.r_[found[rows], found[clean]])), 4)
    return result


def _joined(frames: list[Frame], what: str) -> Frame:
    if not frames:
        raise ReferenceInvalid(f"sample detectors are fitted on {what} frames; got none")
    try:
        return concat(frames)
    except FrameInvalid as error:
        raise ReferenceInvalid(f"the {what} frames do not belong together: {error}") from None


def _finite(frame: Frame) -> NDArray[np.bool_]:
    good = frame.finite_rows()
    found = np.ones(len(frame), bool) if good is None else good
    for values in (frame.uncertainty or {}).values():
        found = found & np.isfinite(values)
    return found


def _labelled(frames: list[Frame]) -> Labelled:
    if any(frame.label is None for frame in frames):
        raise ReferenceInvalid(
            "labelled frames carry `label` (0 natural, 1 adversarial, 2 noisy) in every row; some lack it"
        )
    rows = _joined(frames, "labelled")
    good = _finite(rows)
    if not good.any():
        raise ReferenceInvalid("labelled frames need rows with finite values; got none")
    return labelled_rows(rows.take(good))


def _natural(frames: list[Frame], labelled: Labelled | None) -> tuple[Frame, int, int]:
    rows = _joined(frames, "natural")
    natural = np.concatenate([np.full(len(f), fill_value=True) if f.label is None else f.label == 0 for f in frames])
    good = natural & _finite(rows)
    shared = np.zeros(len(rows), bool)
    if labelled is not None:
        if labelled.frame.model != rows.model:
            raise ReferenceInvalid(f"labelled frames must be of model `{rows.model}`; got `{labelled.frame.model}`")
        shared = good & _shared(rows, labelled.frame)
    kept = good & ~shared
    if int(kept.sum()) < MIN_ROWS:
        raise ReferenceInvalid(
            f"sample detectors need at least {MIN_ROWS} natural rows with finite values, of other sources than the "
            f"labelled ones; got {int(kept.sum())} of {len(rows)}: record more validation traffic"
        )
    return rows.take(kept), int((natural & ~good).sum()), int(shared.sum())


def _shared(natural: Frame, labelled: Frame) -> NDArray[np.bool_]:
    """Natural rows of a labelled source: by sample id, and by the values of every layer."""
    found = np.zeros(len(natural), bool)
    if natural.sample_ids is not None and labelled.sample_ids is not None:
        theirs = {name for name in labelled.sample_ids if name}
        found |= np.array([name in theirs for name in natural.sample_ids])
    common = [name for name in natural.layers if name in labelled.layers]
    keys = set(_keys(labelled, common))
    return np.asarray(found | np.array([key in keys for key in _keys(natural, common)]))


def _keys(frame: Frame, layers: list[str]) -> Iterable[bytes]:
    values = np.hstack([frame.layers[name].astype(np.float32) for name in layers])
    return (row.tobytes() for row in values)
