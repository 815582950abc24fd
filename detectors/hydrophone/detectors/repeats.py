"""Which rows repeat another: equal bytes, or closer in every layer than rounding explains. One rule for windows and for
references. How surprising so many repetitions are is told in `replay.py`.

Copies of one row pull every statistic together and share no luck: ten copies in a window of 100 made the test reject
every time. So each group of repeats is tested as one row, on both sides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hydrophone.detectors.artefact import Manifest
from hydrophone.schemas.frame import Frame

__all__ = ["NEAR", "RepeatRule", "exact_leaders", "groups_of"]

NEAR: Final = 3e-5
"""Of a layer's squared median distance: closer rows are one input, rounded twice. On Fashion-MNIST, rounding to float16
moves a row by up to 1.1e-5 of it; distinct images are 7.9e-4 apart or more (docs/decisions/0012-near-duplicates.md)."""

OUTPUT_TOLERANCE: Final = 1e-3
"""Probabilities closer than this are equal: rounding one to float16 moves it by at most 2.5e-4, twice that two."""

PLACED_LAYERS: Final = 3
"""Layers whose two leading axes place a row in the search for candidates. Fewer find more candidates, never others."""

SLACK: Final = 1.01
"""Candidates are sought a little farther out than repeats may lie: the projection is rounded too."""

FARTHEST: Final = 1e12


@dataclass(frozen=True, eq=False)
class _Layer:
    """`reach`: the squared scaled distance below which rows are near. `axes` `[D, 2]` are orthonormal."""

    name: str
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]
    reach: float

    def places(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Along the axes, in units of the reach: near rows lie within 1 of each other, for projecting brings closer."""
        along = ((values - self.mean) @ (self.axes / self.scale[:, None])) / np.sqrt(self.reach)
        return np.asarray(np.nan_to_num(along).clip(-FARTHEST, FARTHEST), np.float64)

    def near(self, one: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which of `others` are near `one`; in float64, by differences, so that no sum cancels."""
        apart = (others.astype(np.float64) - one.astype(np.float64)) / self.scale
        return np.asarray(np.einsum("ij,ij->i", apart, apart) < self.reach)


@dataclass(frozen=True, eq=False)
class RepeatRule:
    """Two rows are repeats when they are near in every layer and have the same answer: the predicted class, and the
    output within `OUTPUT_TOLERANCE`. Symmetric, and fixed at fit.
    """

    layers: tuple[_Layer, ...]
    has_predicted: bool
    has_output: bool

    @classmethod
    def of(cls, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> "RepeatRule":
        """The rule of a reference."""
        medians = {name: contract.median_distance for name, contract in manifest.layers.items()}
        return cls.fitted(
            medians, arrays, has_predicted=manifest.has_predicted, has_output=manifest.output_classes is not None
        )

    @classmethod
    def fitted(
        cls,
        medians: Mapping[str, float],
        arrays: Mapping[str, NDArray[Any]],
        *,
        has_predicted: bool,
        has_output: bool,
    ) -> "RepeatRule":
        """From each layer's median distance and `fit.<layer>.mean|scale|axes`."""

        def layer(name: str) -> _Layer:
            mean, scale, axes = (arrays[f"fit.{name}.{part}"].astype(np.float64) for part in ("mean", "scale", "axes"))
            return _Layer(name, mean, scale, axes, NEAR * medians[name] ** 2)

        layers = [layer(name) for name in medians]
        return cls(tuple(sorted(layers, key=lambda layer: (len(layer.mean), layer.name))), has_predicted, has_output)

    def leaders(self, rows: Frame) -> NDArray[np.intp]:
        """For each row the first row that it repeats, itself where it repeats none, `[m]`. Rows must be finite.

        Each row is held against leaders alone, in the order given: no chain of small steps joins rows far apart, and
        many copies cost one comparison each. The candidates come from a k-d tree over a few projections.
        """
        leaders = exact_leaders(self._tables(rows))
        first = np.flatnonzero(leaders == np.arange(len(rows)))
        places = np.hstack([layer.places(rows.layers[layer.name][first]) for layer in self.layers[:PLACED_LAYERS]])
        tree = cKDTree(places)
        nearest_two, _ = tree.query(places, k=2, p=np.inf, distance_upper_bound=SLACK)
        near = np.arange(len(first))
        for i in np.flatnonzero(np.isfinite(nearest_two).all(1)).tolist():
            if near[i] == i:
                others = np.array(tree.query_ball_point(places[i], SLACK, p=np.inf), np.intp)
                others = others[(others > i) & (near[others] == others)]
                near[others[self._near(rows, int(first[i]), first[others])]] = i
        lead = np.arange(len(rows))
        lead[first] = first[near]
        return lead[leaders]

    def exactly_equal(self, rows: Frame) -> bool:
        """All rows have the same bytes in what is compared."""
        return not exact_leaders(self._tables(rows)).any()

    def _near(self, rows: Frame, one: int, others: NDArray[np.intp]) -> NDArray[np.bool_]:
        found = np.ones(len(others), bool)
        predicted = rows.classes()
        if self.has_predicted and predicted is not None:
            found &= predicted[others] == predicted[one]
        if self.has_output and rows.output is not None:
            apart = np.abs(rows.output[others].astype(np.float64) - rows.output[one].astype(np.float64))
            found &= apart.max(1) <= OUTPUT_TOLERANCE
        for layer in self.layers:
            left = np.flatnonzero(found)
            values = rows.layers[layer.name]
            found[left] = layer.near(values[one], values[others[left]])
        return found

    def _tables(self, rows: Frame) -> list[NDArray[Any]]:
        tables = [rows.layers[layer.name] for layer in self.layers]
        predicted = rows.classes()
        if self.has_predicted and predicted is not None:
            tables.append(predicted[:, None])
        return tables if rows.output is None or not self.has_output else [*tables, rows.output]


def exact_leaders(tables: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
    """For each row the first row with the same bytes in all tables, `[m]`. One table after the other, and only rows
    that are not yet alone: the first table tells most rows apart.
    """
    leaders = np.arange(len(tables[0]))
    left, group = leaders, np.zeros(len(leaders), np.intp)
    for table in tables:
        keys: dict[tuple[int, bytes], int] = {}
        pairs = zip(group.tolist(), left.tolist(), strict=True)
        found = [keys.setdefault((g, table[i].tobytes()), len(keys)) for g, i in pairs]
        group = np.array(found, np.intp)
        together = np.bincount(group)[group] > 1
        left, group = left[together], group[together]
        if not left.size:
            return leaders
    _, first, which = np.unique(group, return_index=True, return_inverse=True)
    leaders[left] = left[first[which]]
    return leaders


def groups_of(leaders: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The rows of each group of two or more, largest group first, then by leader; rows ascending."""
    sizes = np.bincount(leaders, minlength=len(leaders))
    found = np.flatnonzero(sizes > 1)
    return [np.flatnonzero(leaders == leader) for leader in found[np.argsort(-sizes[found], kind="stable")]]
