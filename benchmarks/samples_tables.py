"""Measures of every pool of one model, and the areas and precisions made of them. Goals and prose: `samples.py`.

Detectors are fitted on the pools `fit` and `calibrate` alone. Of the attacked, noisy and unattacked sources one half is
fitted on and the other scored, in turn: rows of one image are never on both sides.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from benchmarks.samples_pools import SamplePools
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from hydrophone.detectors.samples import fit_samples
from hydrophone.detectors.samples.attribution import NATURAL, AttackForest
from hydrophone.detectors.samples.fitting import Parts
from hydrophone.detectors.samples.rows import Rows
from hydrophone.detectors.samples.suspicion import Suspicion, centred, group_weights, regression_weights, tails
from hydrophone.schemas.frame import Frame, concat

__all__ = ["FAMILIES", "KIN", "Areas", "Tables", "auc", "mean_precision"]

EMBEDDING: Final = "fc2"
FOLD_SEED: Final = 0

KIN: Final = (
    ("FGSM.03", "FGSM.12", "FGM.40", "FGM1.61"),
    ("BIM.03", "BIM.12", "PGD.03", "PGD.12", "L2PGD.40", "L2PGD1.61"),
    ("DeepFool",),
)
"""Attacks that are left out of fitting together: near twins would make any of them known."""

FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "one-step": KIN[0],
    "iterated": ("BIM.03", "BIM.12", "PGD.03", "PGD.12"),
    "iterated-l2": ("L2PGD.40", "L2PGD1.61"),
    "minimal": KIN[2],
}


@dataclass(frozen=True, slots=True)
class Areas:
    """Under the ROC curve, by what stands against the attacked rows; `fooled` counts successful attacks alone."""

    both: float
    sources: float
    noise: float
    clean: float
    fooled: float


class Tables:
    """One model's."""

    def __init__(self, pools: SamplePools) -> None:
        self.pools = pools
        natural = concat([pools.fit, pools.calibrate])
        self.detectors = fit_samples([natural], embedding=EMBEDDING, device="cpu")
        parts = Parts.draw(len(natural), self.detectors.manifest.seed)
        frames = {
            "ranks": natural.take(parts.ranks),
            "calibration": natural.take(parts.calibration),
            "clean": pools.clean,
            "sources": pools.sources,
            **pools.noise,
            **pools.attacks,
            **pools.strangers,
        }
        self.names = self.detectors.manifest.measures
        self.frames: dict[str, Frame] = frames
        self.measures = {name: self._measured(frame) for name, frame in frames.items()}
        self.tails = tails(self.measures["ranks"])
        self.features = {name: centred(*self.tails, values) for name, values in self.measures.items()}
        order = np.random.default_rng(FOLD_SEED).permutation(len(pools.sources))
        half = np.zeros(len(order), bool)
        half[order[: len(order) // 2]] = True
        self.folds = ((half, ~half), (~half, half))

    def column(self, pool: str, measure: str) -> NDArray[np.float64]:
        return np.asarray(self.measures[pool][:, self.names.index(measure)])

    def own_attack(self, attack: str, measures: Sequence[str] | None) -> Areas:
        """A regression on this attack's sources: unattacked and noisy ones, as many of each, and attacked ones."""
        kept = self._kept(measures)

        def learn(seen: NDArray[np.bool_]) -> NDArray[np.float64]:
            clean = np.vstack([self.features[name][seen] for name in ("sources", self._noise_of(attack))])
            return self._weights(clean, self.features[attack][seen], kept)[None]

        return self._areas(attack, [self._suspicion(learn(seen)) for seen, _ in self.folds])

    def left_out(self, attack: str, family: Sequence[str]) -> Areas:
        """The regression and the gate, fitted on all attacks but those of the family."""
        gate = group_weights(self.names)["gate"]
        others = [name for name in self.pools.attacks if name not in family]
        kept = self._kept(None)

        def learn(seen: NDArray[np.bool_]) -> NDArray[np.float64]:
            unattacked = [self.features[name][seen] for name in ("sources", *self.pools.noise)]
            clean = np.vstack([self.features["ranks"], *unattacked])
            hostile = np.vstack([self.features[name][seen] for name in others])
            return np.stack([self._weights(clean, hostile, kept), gate])

        return self._areas(attack, [self._suspicion(learn(seen)) for seen, _ in self.folds])

    def forest(
        self, attacks: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]:
        """Of sources held out: how hostile unattacked and attacked rows look; and per attacked row the share of each
        attack, with the truth."""
        clean, hostile, shares, truth = [], [], [], []
        for seen, unseen in self.folds:
            forest = self.any_forest(attacks, seen)
            places = np.flatnonzero(unseen)
            clean.append(self._hostility(forest, "sources", places))
            for name in attacks:
                P, names = forest.probabilities(self._forest_features(forest, name, places))
                hostile.append(1 - P[:, names.index(NATURAL)])
                columns = P[:, [names.index(other) for other in attacks]]
                shares.append(columns / columns.sum(1, keepdims=True).clip(1e-30))
                truth += [name] * len(places)
        return np.concatenate(clean), np.concatenate(hostile), np.vstack(shares), np.array(truth)

    def any_forest(self, attacks: Sequence[str], seen: NDArray[np.bool_] | None = None) -> AttackForest:
        """As the library fits it: natural rows, unattacked sources and attacked ones."""
        seen = self.folds[0][0] if seen is None else seen
        places = np.flatnonzero(seen)
        width = self.frames["ranks"].layers[EMBEDDING].shape[1]
        empty = AttackForest(None, EMBEDDING, width, self.detectors.manifest.output_classes, self.names)
        everything = np.arange(len(self.frames["ranks"]))
        parts = {NATURAL: [self._forest_features(empty, "ranks", everything)]}
        parts[NATURAL].append(self._forest_features(empty, "sources", places))
        parts |= {name: [self._forest_features(empty, name, places)] for name in attacks}
        names = np.array([name for name, found in parts.items() for part in found for _ in part])
        return empty.fitted(np.vstack([part for found in parts.values() for part in found]), names, seed=0)

    def _hostility(self, forest: AttackForest, pool: str, places: NDArray[np.intp]) -> NDArray[np.float64]:
        P, names = forest.probabilities(self._forest_features(forest, pool, places))
        return np.asarray(1 - P[:, names.index(NATURAL)])

    def _forest_features(self, forest: AttackForest, pool: str, places: NDArray[np.intp]) -> NDArray[np.float64]:
        scores = {name: self.measures[pool][:, k] for k, name in enumerate(self.names)}
        found = forest.features(Rows(self.frames[pool], torch.device("cpu")), scores, places)
        assert found is not None, "a pool's frame brings what a forest needs"
        return found

    def _measured(self, frame: Frame) -> NDArray[np.float64]:
        scores = self.detectors.judge(frame).scores
        return np.column_stack([scores[name] for name in self.names]).astype(np.float64)

    def _kept(self, measures: Sequence[str] | None) -> NDArray[np.bool_]:
        return np.tile([measures is None or name in measures for name in self.names], 2)

    def _weights(
        self, clean: NDArray[np.float64], hostile: NDArray[np.float64], kept: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        both = np.vstack([clean, hostile])[:, kept]
        found = np.zeros(len(kept))
        found[kept] = regression_weights(both, np.arange(len(both)) >= len(clean))
        return found

    def _suspicion(self, weights: NDArray[np.float64]) -> Suspicion:
        return Suspicion.fit(self.measures["ranks"], weights, self.measures["calibration"])

    def _noise_of(self, attack: str) -> str:
        return "noise.12" if attack.endswith((".12", "1.61")) else "noise.03"

    def _areas(self, attack: str, fitted: Sequence[Suspicion]) -> Areas:
        found = []
        for (_, unseen), suspicion in zip(self.folds, fitted, strict=True):
            fooled = self.pools.fooled(attack)[unseen]
            hostile = suspicion(self.measures[attack][unseen])
            sources = suspicion(self.measures["sources"][unseen])
            noise = suspicion(self.measures[self._noise_of(attack)][unseen])
            clean = suspicion(self.measures["clean"])
            both = np.r_[sources, noise]
            found.append(
                Areas(
                    auc(both, hostile),
                    auc(sources, hostile),
                    auc(noise, hostile),
                    auc(clean, hostile),
                    auc(both, hostile[fooled]),
                )
            )
        return Areas(*(statistics.fmean(values) for values in zip(*map(_values, found), strict=True)))


def _values(areas: Areas) -> tuple[float, ...]:
    return areas.both, areas.sources, areas.noise, areas.clean, areas.fooled


def auc(clean: NDArray[np.float64], hostile: NDArray[np.float64]) -> float:
    return float(roc_auc_score(np.r_[np.zeros(len(clean)), np.ones(len(hostile))], np.r_[clean, hostile]))


def mean_precision(shares: NDArray[np.float64], truth: NDArray[np.str_], names: Sequence[str]) -> float:
    """Mean over names of the average precision, each against all others."""
    return statistics.fmean(float(average_precision_score(truth == name, shares[:, k])) for k, name in enumerate(names))
