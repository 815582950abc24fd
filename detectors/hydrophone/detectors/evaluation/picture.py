"""Natural and adversarial rows on a plane, per predicted class: t-SNE of the embedding, for a look, not a test."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from hydrophone.detectors.evaluation.truth import Truth

__all__ = ["Panel", "Picture", "picture"]

MOST_CLASSES: Final = 12
MOST_ROWS: Final = 60
"""Of each side and class: more would hide each other."""

LEAST_ROWS: Final = 4
PERPLEXITY: Final = 20.0


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows predicted as one class; `sources[i]` is of `xy[i]`."""

    predicted: int
    xy: tuple[tuple[float, float], ...]
    sources: tuple[str, ...]
    is_hostile: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    layer: str
    panels: tuple[Panel, ...]


def picture(truth: Truth, layer: str, *, seed: int = 0) -> Picture | None:
    """Classes that have rows of both sides, the most hostile ones first; None where there is none. Each class gets a
    plane of its own: what matters is whether the sides lie apart within it."""
    predicted = truth.frame.classes()
    if predicted is None:
        return None
    rng = np.random.default_rng(seed)
    chosen = {}
    for name in np.unique(predicted).tolist():
        members = predicted == name
        sides = [np.flatnonzero(members & side) for side in (truth.is_natural, truth.is_hostile)]
        if min(len(side) for side in sides) >= LEAST_ROWS:
            chosen[name] = np.concatenate([rng.permutation(side)[:MOST_ROWS] for side in sides])
    largest = sorted(chosen, key=lambda name: -len(chosen[name]))[:MOST_CLASSES]
    panels = tuple(_panel(name, chosen[name], truth, layer, seed) for name in sorted(largest))
    return Picture(layer, panels) if panels else None


def _panel(predicted: int, rows: NDArray[np.intp], truth: Truth, layer: str, seed: int) -> Panel:
    values = truth.frame.layers[layer][rows].astype(np.float64)
    values = np.nan_to_num((values - np.nanmean(values, axis=0)) / (np.nanstd(values, axis=0) + 1e-9))
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    xy = TSNE(2, perplexity=perplexity, init="random", random_state=seed).fit_transform(values)
    return Panel(
        predicted,
        tuple((round(float(x), 2), round(float(y), 2)) for x, y in xy),
        tuple(str(name) for name in truth.sources[rows]),
        tuple(truth.is_hostile[rows].tolist()),
    )
