"""A reference made ready on a device: scaled rows in stratum order, its kernel blocks, and cached shares of the null.

With Z fixed for a window size, the reference's own share of the null is computed once and reused. Within strata Z
depends on the window's class counts; then the share of the same-class kernel is cached per (class, count), and the
global kernel's is computed anew from the kept kernel blocks. What a window adds lives in `window_test.py`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from hydrophone.detectors.artefact import CLASSES, OUTPUTS, ReferenceArtefact
from hydrophone.detectors.bins import Bins, bin_rows, block_order, reference_bins
from hydrophone.detectors.closeness import Closeness
from hydrophone.detectors.gram import BLOCK_ROWS, UpperGram, binned_gram, upper_distances, upper_kernels
from hydrophone.detectors.kernels import BANDWIDTH_FACTORS, gaussian, squared_distances
from hydrophone.detectors.outputs import output_scores
from hydrophone.detectors.permutation import splits
from hydrophone.detectors.strata import Strata

__all__ = ["MEMORY_BYTES", "Layer", "PreparedReference", "ReferenceShare", "Stratum", "scaled"]

MEMORY_BYTES: Final = 512 * 1024 * 1024
"""Most bytes each of: kept kernel blocks, cached splits and shares, and a window's temporaries. Beyond it the first are
recomputed for every window and the last are worked off in parts; three times this bounds a prepared reference."""

CENTRE_ROWS: Final = 1_024

FARTHEST: Final = 1e4
"""Scaled features are cut here: no kernel sees that far, and the square of a larger one would drown or overflow."""

T = TypeVar("T")


class _BoundedCache(Generic[T]):
    """Least recently used out first, bounded in bytes: an entry costs the bytes of its tensors."""

    def __init__(self, most_bytes: int, size: Callable[[T], int]) -> None:
        self._entries: OrderedDict[tuple[int, ...], T] = OrderedDict()
        self._size, self._most, self._held = size, most_bytes, 0

    def get(self, key: tuple[int, ...], make: Callable[[], T]) -> T:
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        value = make()
        self._entries[key] = value
        self._held += self._size(value)
        while self._held > self._most and len(self._entries) > 1:
            self._held -= self._size(self._entries.popitem(last=False)[1])
        return value


@dataclass(frozen=True)
class Layer:
    """One layer on the device; `bandwidths` are σ at ½, 1, 2 × the median, `centres` are taken off the kernels."""

    name: str
    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    axes: Float[Tensor, "d 2"]
    rows: Float[Tensor, "n d"]
    bandwidths: tuple[float, ...]
    centres: tuple[float, ...]
    closeness: Closeness

    def scaled(self, values: NDArray[np.floating]) -> Float[Tensor, "m d"]:
        rows = torch.from_numpy(np.ascontiguousarray(values)).to(self.rows.device, torch.float32)
        return scaled(rows, self.mean, self.scale)

    def kernels(self, X: Float[Tensor, "a d"], Y: Float[Tensor, "b d"]) -> Float[Tensor, "3 a b"]:
        """Centred kernel values at every bandwidth."""
        squared = squared_distances(X, Y)
        return torch.stack([gaussian(squared, h).sub_(c) for h, c in zip(self.bandwidths, self.centres, strict=True)])


@dataclass(frozen=True)
class Stratum:
    """The splits of one stratum's units, which are rows or bins of them; column 0 is the observed split."""

    Zx: Float[Tensor, "units C"]
    Zy: Float[Tensor, "window_units C"]

    def nbytes(self) -> int:
        return self.Zx.nbytes + self.Zy.nbytes


@dataclass(frozen=True)
class _Grams:
    """Kept kernel sums of pairs of bins, of every layer; bytes of the upper halves."""

    of_layer: tuple[UpperGram, ...]

    def nbytes(self) -> int:
        return sum(2 * gram.branches * gram.rows * (gram.rows + BLOCK_ROWS) for gram in self.of_layer)


@dataclass(frozen=True)
class ReferenceShare:
    """The reference's own part of q for the rows of one stratum (or all), per kernel, `[G, C]`."""

    q: Float[Tensor, "G C"]

    def nbytes(self) -> int:
        return self.q.nbytes


class PreparedReference:
    """Rows `starts[s]:starts[s + 1]` are stratum s, in ascending order of their place in the artefact."""

    def __init__(self, artefact: ReferenceArtefact, device: torch.device, *, memory_bytes: int = MEMORY_BYTES) -> None:
        manifest = artefact.manifest
        self.artefact, self.device, self.memory_bytes = artefact, device, memory_bytes
        self.permutations, self.block_rows = manifest.permutations, manifest.block_rows
        self.seed = manifest.permutation_seed
        self.strata = Strata(manifest.classes) if manifest.has_predicted else None
        order = self._order()
        self.layers = tuple(self._layer(name, order) for name in sorted(manifest.layers))
        self.n = len(order)
        self.closeness = torch.stack([layer.closeness(layer.rows, self.row_strata) for layer in self.layers])
        outputs = artefact.arrays.get(OUTPUTS)
        self.output_scores = None if outputs is None else output_scores(outputs[order], device)
        self._splits: _BoundedCache[Stratum] = _BoundedCache(memory_bytes // 2, Stratum.nbytes)
        self._shares: _BoundedCache[ReferenceShare] = _BoundedCache(memory_bytes // 2, ReferenceShare.nbytes)
        self._grams: _BoundedCache[_Grams] = _BoundedCache(memory_bytes // 2, _Grams.nbytes)
        self._bins: dict[tuple[int, bool], Bins] = {}
        self._kept = self._kept_blocks()
        self.row_sums = torch.cat([self.gram(layer).row_sums() for layer in range(len(self.layers))])
        self.class_row_sums = self._class_row_sums()

    def _order(self) -> NDArray[np.intp]:
        """Reference rows sorted by stratum, or by the place in their block; sets `counts`, `starts`, `row_strata`."""
        rows = len(next(array for name, array in self.artefact.arrays.items() if name.startswith("reference.")))
        predicted = self.artefact.arrays.get(CLASSES)
        assigned = (
            np.zeros(rows, np.int64) if self.strata is None or predicted is None else self.strata.assign(predicted)
        )
        if self.block_rows is None:
            self.counts = (rows,) if self.strata is None else self.strata.counts(assigned)
            order = np.argsort(assigned, kind="stable")
        else:
            self.counts, order = (rows,), block_order(rows, self.block_rows)
        self.starts = (0, *np.cumsum(self.counts).tolist())
        self.row_strata = torch.from_numpy(assigned[order]).to(self.device)
        self._as_drawn = torch.from_numpy(np.argsort(order)).to(self.device)
        return order

    def _layer(self, name: str, order: NDArray[np.intp]) -> Layer:
        arrays = self.artefact.arrays
        mean, scale, axes = (
            torch.from_numpy(np.array(arrays[f"fit.{name}.{part}"])) for part in ("mean", "scale", "axes")
        )
        values = torch.from_numpy(arrays[f"reference.{name}"][order].astype(np.float32))
        rows = scaled(values, mean, scale).to(self.device)
        median = self.artefact.manifest.layers[name].median_distance
        bandwidths = tuple(factor * median for factor in BANDWIDTH_FACTORS)
        sample = squared_distances(some := rows[:: -(-len(rows) // CENTRE_ROWS)], some)
        centres = tuple(float(gaussian(sample, h).mean()) for h in bandwidths)
        fitted = {part: arrays[f"closeness.{name}.{part}"] for part in Closeness.names()}
        return Layer(
            name,
            mean.to(self.device),
            scale.to(self.device),
            axes.to(self.device),
            rows,
            bandwidths,
            centres,
            Closeness.load(fitted, self.device),
        )

    def _kept_blocks(self) -> list[list[tuple[int, Float[Tensor, "3 b rest"]]]] | None:
        needed = len(self.layers) * len(BANDWIDTH_FACTORS) * 2 * self.n * (self.n + BLOCK_ROWS)
        return None if needed > self.memory_bytes else [list(self._make_blocks(layer)) for layer in self.layers]

    def _make_blocks(self, layer: Layer) -> Iterator[tuple[int, Float[Tensor, "3 b rest"]]]:
        for start, squared in upper_distances(layer.rows):
            yield start, upper_kernels(squared, layer.bandwidths, layer.centres)

    def gram(self, layer: int) -> UpperGram:
        """The global kernels of the reference rows of one layer."""
        kept, made = self._kept, self.layers[layer]
        blocks = (lambda: self._make_blocks(made)) if kept is None else (lambda: iter(kept[layer]))
        return UpperGram(self.n, len(BANDWIDTH_FACTORS), blocks)

    def whole_order(self, m: int) -> NDArray[np.intp]:
        """How m window rows, as given, are to stand where strata are ignored."""
        return np.arange(m) if self.block_rows is None else block_order(m, self.block_rows)

    def bin_rows(self, window: Sequence[int], *, is_stratified: bool) -> int:
        """Rows a bin for a window of so many rows per stratum."""
        if self.block_rows is not None:
            return self.block_rows
        return bin_rows(self.counts if is_stratified else (self.n,), window)

    def bins(self, size: int, *, is_stratified: bool) -> Bins:
        """The reference's rows in bins. The artefact holds the rows as the seed drew them, so that the bins of a
        stratum, or of all rows where strata are ignored, are random."""
        if (kept := self._bins.get((size, is_stratified))) is not None:
            return kept
        counts = self.counts if is_stratified else (self.n,)
        bins = reference_bins(counts, size) if self.block_rows is None else Bins.of(counts, size)
        if not is_stratified and self.class_row_sums is not None and not bins.are_single:
            bins = replace(bins, take=self._as_drawn)
        self._bins[size, is_stratified] = bins
        return bins

    def grams(self, size: int, *, is_stratified: bool) -> tuple[UpperGram, ...]:
        """The global kernels of the reference's bins, of every layer."""
        bins = self.bins(size, is_stratified=is_stratified)
        if bins.are_single:
            return tuple(self.gram(index) for index in range(len(self.layers)))
        make = partial(self._binned_grams, bins, slice(None))
        return self._grams.get((-1 - is_stratified, size), make).of_layer

    def _binned_grams(self, bins: Bins, rows: slice) -> _Grams:
        return _Grams(tuple(binned_gram(x.rows[rows], bins, x.bandwidths, x.centres) for x in self.layers))

    def stratum(self, index: int | None, m: int, size: int = 1) -> Stratum:
        """Splits of stratum `index` (None: all rows as one) for m window rows, in bins of `size` rows."""
        mine = self.bins(size, is_stratified=False) if index is None else self._class_bins(index, size)
        tag = -1 if index is None else index

        def make() -> Stratum:
            theirs = Bins.of((m,), size)
            n_bins, m_bins = mine.bins[0], theirs.bins[0]
            key = (self.seed, tag + 1, n_bins, m_bins)
            Z = torch.from_numpy(splits(n_bins, m_bins, self.permutations, key)).to(self.device)
            return Stratum(_with_left(Z[:n_bins], mine, 0.0), _with_left(Z[n_bins:], theirs, 1.0))

        return self._splits.get((tag, m, size), make)

    def _class_bins(self, index: int, size: int) -> Bins:
        return self.bins(size, is_stratified=True).stratum(index)

    def plain_share(self, m: int, size: int = 1) -> Float[Tensor, "G C"]:
        """q of the reference rows under all-rows splits, for every layer and bandwidth; cached per window size."""

        def make() -> ReferenceShare:
            Zx = self.stratum(None, m, size).Zx[self.bins(size, is_stratified=False).moving]
            return ReferenceShare(torch.cat([gram.quadratic(Zx) for gram in self.grams(size, is_stratified=False)]))

        return self._shares.get((-1, m, size), make).q

    def stratified_share(self, strata: Sequence[Stratum], size: int) -> Float[Tensor, "G C"]:
        """q of the reference rows under splits within strata, for every layer and bandwidth of the global kernel."""
        Zx = torch.cat([stratum.Zx for stratum in strata])[self.bins(size, is_stratified=True).moving]
        return torch.cat([gram.quadratic(Zx) for gram in self.grams(size, is_stratified=True)])

    def class_share(self, index: int, m: int, size: int = 1) -> Float[Tensor, "G C"]:
        """q of one stratum's reference rows under the same-class kernel; cached per (class, count)."""
        bins = self._class_bins(index, size)

        def make() -> ReferenceShare:
            Zx = self.stratum(index, m, size).Zx[bins.moving]
            return ReferenceShare(torch.cat([gram.quadratic(Zx) for gram in self._class_grams(index, bins)]))

        return self._shares.get((index, m, size), make).q

    def _class_grams(self, index: int, bins: Bins) -> Sequence[UpperGram]:
        if bins.are_single:
            return [self._class_gram(layer, index) for layer in self.layers]
        rows = slice(self.starts[index], self.starts[index + 1])
        return self._grams.get((index, bins.size), partial(self._binned_grams, bins, rows)).of_layer

    def _class_gram(self, layer: Layer, index: int) -> UpperGram:
        rows = layer.rows[self.starts[index] : self.starts[index + 1]]
        blocks = [
            (at, upper_kernels(squared, layer.bandwidths, layer.centres)) for at, squared in upper_distances(rows)
        ]
        return UpperGram(rows.shape[0], len(BANDWIDTH_FACTORS), lambda: iter(blocks))

    def _class_row_sums(self) -> Float[Tensor, "G n"] | None:
        """r of the reference rows under the same-class kernel, in row order."""
        if self.strata is None or self.block_rows is not None:
            return None
        occupied: Sequence[int] = [index for index, rows in enumerate(self.counts) if rows]
        per_layer = [
            torch.cat([self._class_gram(layer, index).row_sums() for index in occupied], dim=1) for layer in self.layers
        ]
        return torch.cat(per_layer)

    def strata_counts(self, strata: NDArray[np.int64]) -> tuple[int, ...]:
        """Window rows per stratum."""
        assert self.strata is not None, "strata were asked of a reference without classes"
        return self.strata.counts(strata)


def scaled(values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Rows in units of the fit rows' scale, cut at `FARTHEST`."""
    return ((values - mean) / scale).clamp_(-FARTHEST, FARTHEST)


def _with_left(Z: Float[Tensor, "bins C"], bins: Bins, side: float) -> Float[Tensor, "units C"]:
    """The splits of one stratum's bins, and behind them its other rows, which stay where they are."""
    return torch.cat([Z, Z.new_full((1, Z.shape[1]), side)]) if bins.left[0] else Z.clone()
