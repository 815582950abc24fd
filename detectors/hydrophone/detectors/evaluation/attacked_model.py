"""Which of several models was attacked, told from one answer: a random forest on outputs, held out by source.

For whoever finds adversarial answers in a log and wonders where the attacker has a copy of a model: an attack made
against one leaves another kind of answer than one that was carried over. Fitted and scored within the evaluation; no
artefact is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support
from sklearn.model_selection import StratifiedGroupKFold

from hydrophone.detectors.evaluation.curves import Rate, rate
from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame

__all__ = ["ModelAttribution", "OneModel", "which_model"]

FOLDS: Final = 5
TREES: Final = 100
LEAST_ROWS: Final = 20
TINY: Final = 1e-12
ADVERSARIAL: Final = 1


@dataclass(frozen=True, slots=True)
class OneModel:
    model: str
    rows: int
    precision: float
    recall: float
    f1: float
    average_precision: float


@dataclass(frozen=True, slots=True)
class ModelAttribution:
    """`confusion[i][j]`: rows of model i taken for j's. `chance`: mean precision of guessing by size. `folds` hold out
    by source where rows have sample ids (`is_grouped`)."""

    models: tuple[OneModel, ...]
    right: Rate
    mean_precision: float
    chance: float
    confusion: tuple[tuple[int, ...], ...]
    folds: int
    is_grouped: bool


def which_model(frames: Mapping[str, Sequence[Frame]], *, seed: int = 0) -> ModelAttribution:
    """By adversarial rows (label 1; all rows where there are no labels) and their outputs alone.

    Raises `FrameInvalid` where outputs are missing, of unequal width, or too few.
    """
    if len(frames) < 2:
        raise FrameInvalid("one_model", f"at least two models can be told apart; got {sorted(frames)}")
    answers = {name: _answers(name, parts) for name, parts in frames.items()}
    widths = {name: output.shape[1] for name, (output, _) in answers.items()}
    if len(set(widths.values())) > 1:
        raise FrameInvalid("wrong_dimension", f"outputs of all models must be equally wide; got {widths}")
    names = list(answers)
    X = _features(np.concatenate([output for output, _ in answers.values()]))
    y = np.repeat(np.arange(len(names)), [len(output) for output, _ in answers.values()])
    ids = [sample for _, samples in answers.values() for sample in samples]
    is_grouped = all(sample is not None for sample in ids)
    groups = np.unique([sample or "" for sample in ids], return_inverse=True)[1] if is_grouped else np.arange(len(y))
    P = _held_out(X, y, groups, len(names), seed)
    taken = P.argmax(1)
    precision, recall, f1, rows = precision_recall_fscore_support(y, taken, labels=range(len(names)), zero_division=0.0)
    models = tuple(
        OneModel(name, int(rows[k]), float(precision[k]), float(recall[k]), float(f1[k]), _ap(y == k, P[:, k]))
        for k, name in enumerate(names)
    )
    return ModelAttribution(
        models=models,
        right=rate(int((taken == y).sum()), len(y)),
        mean_precision=float(np.mean([model.precision for model in models])),
        chance=1 / len(names),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion_matrix(y, taken, labels=range(len(names)))),
        folds=FOLDS,
        is_grouped=is_grouped,
    )


def _ap(is_one: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> float:
    return float(average_precision_score(is_one, probabilities))


def _answers(name: str, parts: Sequence[Frame]) -> tuple[NDArray[np.float64], list[str | None]]:
    # The models' frames bring layers of their own: only what is asked for is joined.
    outputs, samples = [], []
    for frame in parts:
        if frame.output is None:
            raise FrameInvalid(
                "missing_tensor:output", f"models are told apart by their answers; `{name}` lacks `output`"
            )
        keep = np.flatnonzero(frame.label == ADVERSARIAL) if frame.label is not None else np.arange(len(frame))
        if keep.size:
            finite = keep[np.isfinite(frame.output[keep]).all(1)]
            outputs.append(frame.output[finite].astype(np.float64))
            known = frame.sample_ids
            samples += [None if known is None else known[row] for row in finite.tolist()]
    together = np.concatenate(outputs) if outputs else np.empty((0, 0))
    if len(together) < LEAST_ROWS:
        raise FrameInvalid(
            "too_few_rows", f"each model needs at least {LEAST_ROWS} adversarial rows; `{name}` has {len(together)}"
        )
    return together, samples


def _features(outputs: NDArray[np.float64]) -> NDArray[np.float32]:
    """Log probabilities, as they stand and in order."""
    logs = np.log(outputs.clip(TINY))
    return np.hstack([logs, -np.sort(-logs, axis=1)]).astype(np.float32)


def _held_out(
    X: NDArray[np.float32], y: NDArray[np.intp], groups: NDArray[np.intp], models: int, seed: int
) -> NDArray[np.float64]:
    """Probabilities of each row by a forest that saw no row of its source."""
    found = np.zeros((len(y), models))
    for fitted, held_out in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(X, y, groups):
        forest = RandomForestClassifier(TREES, class_weight="balanced", min_samples_leaf=2, random_state=seed)
        forest.fit(X[fitted], y[fitted])
        found[np.ix_(held_out, forest.classes_)] = forest.predict_proba(X[held_out])
    return found
