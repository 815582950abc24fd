"""The window test again: slow, in float64, from the definitions. It shares no line and no trick with the detectors.

Rows are pooled, reference first. A column of Z marks who plays the window; the first column is the truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = [
    "OracleResult",
    "gaussian_kernel",
    "joint_test",
    "p_value",
    "rows_of_units",
    "score_statistic",
    "studentised",
    "unbiased_mmd2",
    "witness",
]

Array = NDArray[np.float64]

SAME: Final = 1e-9
"""In float64, statistics closer than this were equal before rounding."""


@dataclass(frozen=True)
class OracleResult:
    """`layers` holds (statistic, p-value, p-value adjusted over all layers); `statistics` is `[branches, columns]`."""

    statistic: float
    p_value: float
    layers: dict[str, tuple[float, float, float]]
    statistics: Array
    mmd2: dict[str, float]


def gaussian_kernel(rows: Array, bandwidth: float) -> Array:
    """k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)), one row against all at a time."""
    squared = np.stack([((rows - row) ** 2).sum(1) for row in rows])
    return np.exp(-squared / (2 * bandwidth**2))


def unbiased_mmd2(kernel: Array, plays_window: NDArray[np.bool_]) -> float:
    """Gretton et al., JMLR 13 (2012), equation 3."""
    x, y = np.flatnonzero(~plays_window), np.flatnonzero(plays_window)
    xx, yy, xy = kernel[np.ix_(x, x)], kernel[np.ix_(y, y)], kernel[np.ix_(x, y)]
    n, m = len(x), len(y)
    within_x = (xx.sum() - np.trace(xx)) / (n * (n - 1))
    within_y = (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within_x + within_y - 2 * xy.sum() / (n * m))


def studentised(values: Array) -> Array:
    """Less their mean, over their deviation; zeros where they do not vary."""
    deviation = float(np.sqrt(np.mean((values - values.mean()) ** 2)))
    return np.zeros_like(values) if deviation < 1e-12 else (values - values.mean()) / deviation


def p_value(observed: float, null: Array) -> float:
    return float((1 + np.count_nonzero(null >= observed - SAME)) / (1 + len(null)))


def joint_test(
    layers: Mapping[str, Array],
    Z: NDArray[np.floating],
    bandwidths: Mapping[str, Sequence[float]],
    classes: NDArray[np.integer] | None = None,
    scores: Mapping[str, Sequence[Array]] | None = None,
) -> OracleResult:
    """Every layer at every bandwidth, with the kernel as it is and, given `classes`, zero between classes too; and
    every score a row has: the density under the narrowest kernel, and those given."""
    columns = [column > 0.5 for column in np.asarray(Z).T]
    groups = np.zeros(len(columns[0]), int) if classes is None else np.asarray(classes)
    per_layer: dict[str, list[Array]] = {}
    mmd2: dict[str, float] = {}
    for name in sorted(layers):
        for bandwidth in bandwidths[name]:
            kernel = gaussian_kernel(np.asarray(layers[name], np.float64), bandwidth)
            branches = [kernel] if classes is None else [kernel, kernel * (classes[:, None] == classes[None, :])]
            values = [np.array([unbiased_mmd2(branch, column) for column in columns]) for branch in branches]
            per_layer.setdefault(name, []).extend(studentised(value) for value in values)
            if bandwidth == sorted(bandwidths[name])[len(bandwidths[name]) // 2]:
                mmd2[name] = float(values[0][0])
            if bandwidth == min(bandwidths[name]):
                density = [branches[-1][i].sum() - branches[-1][i, i] for i in range(len(groups))]
                near = np.round(np.array(density) * 256) / 256  # as coarse as the detectors, so that ties are ties
                per_layer[name].append(score_statistic(-near, groups, columns))
    for name, given in (scores or {}).items():
        per_layer.setdefault(name, []).extend(score_statistic(score, groups, columns) for score in given)
    everything = np.stack([value for values in per_layer.values() for value in values])
    maxima = everything.max(0)
    results = {}
    for name, values in per_layer.items():
        own = np.stack(values).max(0)
        results[name] = (float(own[0]), p_value(own[0], own[1:]), p_value(own[0], maxima[1:]))
    return OracleResult(float(maxima[0]), p_value(maxima[0], maxima[1:]), results, everything, mmd2)


def rows_of_units(units: NDArray[np.floating], rows: int, size: int, *, in_turn: bool) -> NDArray[np.floating]:
    """Splits of rows from those of their bins of `size` rows, behind which one more line may stand for the rows over.

    `in_turn`: the first bin is the first `size` rows, and so on; else bins take turns, row after row.
    """
    bins = len(units) - (len(units) * size != rows)
    whole = [row // size if in_turn else row % bins for row in range(bins * size)]
    return units[[*whole, *[len(units) - 1] * (rows - len(whole))]]


def score_statistic(score: Array, groups: NDArray[np.integer], columns: Sequence[NDArray[np.bool_]]) -> Array:
    """Rank sum and tail counts of one score within groups, studentised, joined by squares of their positive parts."""
    u = np.empty(len(score))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        u[rows] = (rankdata(score[rows]) - 0.5) / len(rows)
    joined = np.zeros(len(columns))
    for weight in (u - 0.5, u > 0.99, u > 0.97, u > 0.90):
        sums = np.array([float(weight[column].sum()) for column in columns])
        joined += np.maximum(studentised(sums), 0.0) ** 2
    return studentised(joined)


def witness(kernel: Array, plays_window: NDArray[np.bool_]) -> Array:
    """For each window row: mean kernel with the other window rows less mean kernel with the reference rows."""
    x, y = np.flatnonzero(~plays_window), np.flatnonzero(plays_window)
    return np.array([kernel[i, y[y != i]].mean() - kernel[i, x].mean() for i in y])


def redraw_p_values(
    layers: Mapping[str, tuple[Array, Array]],
    signs: NDArray[np.floating],
    bandwidths: Sequence[float],
    kept: NDArray[np.bool_] | None,
) -> tuple[float, dict[str, float]]:
    """One re-draw: reference rows and window rows in pairs. Each column of signs swaps the pairs where it is -1, and
    the MMD² of what results (without the kernel of a row and its own partner) is computed from its definition."""
    nulls = {}
    for name, (reference, window) in layers.items():
        x, y = (np.asarray(side if kept is None else side[kept], np.float64) for side in (reference, window))
        s = len(x)
        kernel = np.sum([gaussian_kernel(np.concatenate([x, y]), h) for h in bandwidths], axis=0)
        others = ~np.eye(s, dtype=bool)
        values = []
        for column in signs[: len(window)].T if kept is None else signs[: len(window)][kept].T:
            first = np.where(column > 0, np.arange(s), np.arange(s) + s)
            second = np.where(column > 0, np.arange(s) + s, np.arange(s))
            h = kernel[np.ix_(first, first)] + kernel[np.ix_(second, second)] - 2 * kernel[np.ix_(first, second)]
            values.append(h[others].mean())
        nulls[name] = studentised(np.array(values))
    maxima = np.stack(list(nulls.values())).max(0)
    own = {name: p_value(null[0], null[1:]) for name, null in nulls.items()}
    return p_value(maxima[0], maxima[1:]), own
