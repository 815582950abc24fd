"""One window against a prepared reference: dense and sparse evidence of every layer under one set of permutations.

With z = (zx, zy) a split and K symmetric of zero diagonal,
    q = zᵀKz = zxᵀKxx zx + Σ zy ∘ ([2 Kyx | Kyy] z),
so what a window adds is one product of its kernel rows `[G·m, N]` with Z `[N, B + 1]`, all branches stacked. The first
term is the reference's share (`prepared.py`). Who is suspected is told in `witness.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from hydrophone.detectors.bins import Bins
from hydrophone.detectors.kernels import BANDWIDTH_FACTORS
from hydrophone.detectors.mmd import MmdWeights, mmd2
from hydrophone.detectors.outputs import OUTPUT, output_scores
from hydrophone.detectors.permutation import JointNull, studentise
from hydrophone.detectors.prepared import Layer, PreparedReference, Stratum
from hydrophone.detectors.scalars import ScalarStatistics, scalar_statistics
from hydrophone.detectors.suspicion import row_p_values

__all__ = ["BranchName", "Measure", "WindowRows", "WindowStatistics", "window_statistics"]

DENSITY_STEP: Final = 1 / 256
"""Of one coinciding neighbour: well above the rounding of a sum over ten thousand rows."""

LEAST_WEIGHT: Final = 1e-3
"""Of a score that found nothing in the window, when its rows are judged one by one."""

MEDIAN_BRANCH: Final = BANDWIDTH_FACTORS.index(1.0)


Measure = Literal[
    "mmd_global", "mmd_same_class", "density", "mahalanobis", "residual", "entropy", "certainty", "doubt", "confidence"
]
KERNELS: Final[tuple[Measure, ...]] = ("mmd_global", "mmd_same_class")
SCALARS: Final[tuple[Measure, ...]] = ("density", "mahalanobis", "residual")
ANSWERS: Final[tuple[Measure, ...]] = ("entropy", "certainty", "doubt", "confidence")


@dataclass(frozen=True, slots=True)
class BranchName:
    """One statistic of the joint test. `bandwidth` is in median distances, None for statistics of one number a row."""

    layer: str
    measure: Measure
    bandwidth: float | None = None


@dataclass(frozen=True)
class WindowStatistics:
    """`joint.statistics[i]` belongs to `branches[i]`; `mmd2` is per layer; rows change sides `bin_rows` at a time, and
    `effective_rows` of the window's can; `witness` is per branch and window row, in the order the rows were given: how
    much of the branch's studentised statistic the row accounts for. `p_values` are of single rows, in that order too.
    """

    branches: tuple[BranchName, ...]
    joint: JointNull
    mmd2: dict[str, float]
    witness: Float[Tensor, "G m"]
    p_values: Float[Tensor, " m"]
    bin_rows: int = 1
    effective_rows: int = 0


@dataclass(frozen=True)
class WindowRows:
    """What a test is given: `layers[name]` is `[m, D]`, finite, m >= 2. `classes[i]` is the stratum of row i (all 0
    without classes); `is_stratified` says whether splits stay within them. `output` is `[m, C]` where required.
    """

    layers: Mapping[str, NDArray[np.floating]]
    classes: NDArray[np.int64]
    is_stratified: bool
    output: NDArray[np.floating] | None = None


def window_statistics(prepared: PreparedReference, rows: WindowRows) -> WindowStatistics:
    """All statistics of a window under one set of splits."""
    order = np.argsort(rows.classes, kind="stable") if rows.is_stratified else prepared.whole_order(len(rows.classes))
    window = _Window(prepared, rows, order)
    parts = [window.layer(index) for index in range(len(prepared.layers))]
    U, magnitude = torch.cat([part.U for part in parts]), torch.cat([part.magnitude for part in parts])
    deviation = U.std(1, correction=0).clamp(min=1e-300)
    scores = window.scores(parts)
    scalars = scalar_statistics(scores, window.row_strata(), window.Z, window.sums)
    contributions = torch.cat([part.witness for part in parts]) * (2.0 / window.m) / deviation[:, None]
    contributions = torch.cat([contributions, scalars.shares[:, prepared.n :]])
    as_given = torch.from_numpy(np.argsort(order)).to(contributions.device)
    return WindowStatistics(
        branches=_branches(prepared, is_stratified=rows.is_stratified),
        joint=JointNull(torch.cat([studentise(U, magnitude), scalars.statistics])),
        mmd2={layer.name: float(part.U[MEDIAN_BRANCH, 0]) for layer, part in zip(prepared.layers, parts, strict=True)},
        witness=contributions[:, as_given],
        p_values=window.p_values(scores, scalars)[as_given],
        bin_rows=window.bin_rows,
        effective_rows=window.effective_rows(),
    )


def _branches(prepared: PreparedReference, *, is_stratified: bool) -> tuple[BranchName, ...]:
    """In the order in which `window_statistics` stacks them."""
    kernels = KERNELS if is_stratified else KERNELS[:1]
    dense = [BranchName(layer.name, k, h) for layer in prepared.layers for k in kernels for h in BANDWIDTH_FACTORS]
    sparse = [BranchName(layer.name, measure) for layer in prepared.layers for measure in SCALARS]
    answers = [] if prepared.output_scores is None else [BranchName(OUTPUT, measure) for measure in ANSWERS]
    return (*dense, *sparse, *answers)


@dataclass(frozen=True)
class _LayerPart:
    """One layer's statistics `[3 or 6, C]`, their kernels' mean values, the witness of each row; and for all rows, the
    reference's first, their kernel density at the narrowest bandwidth (up to a constant), and the window's closeness.
    """

    U: Float[Tensor, "G C"]
    magnitude: Float[Tensor, " G"]
    witness: Float[Tensor, "G m"]
    density: Float[Tensor, " N"]
    closeness: Float[Tensor, "2 m"]


class _Window:
    """A window's rows in stratum order beside the reference's; gives the statistics of one layer at a time. `mine` and
    `theirs` are the bins of the reference's rows and of the window's."""

    def __init__(self, prepared: PreparedReference, rows: WindowRows, order: NDArray[np.intp]) -> None:
        self.prepared, self.stratified = prepared, rows.is_stratified
        self.values = {name: values[order] for name, values in rows.layers.items()}
        self.classes = torch.from_numpy(rows.classes[order]).to(prepared.device)
        self.output = None if rows.output is None else rows.output[order]
        self.m = len(order)
        self.counts = prepared.strata_counts(rows.classes) if rows.is_stratified else (self.m,)
        self.weights = MmdWeights.of(prepared.n, self.m)
        self.spans = (0, *np.cumsum(self.counts).tolist())
        b = self.bin_rows = prepared.bin_rows(self.counts, is_stratified=self.stratified)
        self.mine, self.theirs = prepared.bins(b, is_stratified=self.stratified), Bins.of(self.counts, b)
        if self.stratified:
            self.strata = [prepared.stratum(index, count, b) for index, count in enumerate(self.counts)]
            self.whole = Stratum(torch.cat([s.Zx for s in self.strata]), torch.cat([s.Zy for s in self.strata]))
            self.share = prepared.stratified_share(self.strata, b)
        else:
            self.strata = []
            self.whole = prepared.stratum(None, self.m, b)
            self.share = prepared.plain_share(self.m, b)
        self.Z = torch.cat([self.whole.Zx, self.whole.Zy])

    def effective_rows(self) -> int:
        """Window rows in bins that have a reference bin to change places with."""
        return sum(m * self.bin_rows for n, m in zip(self.mine.bins, self.theirs.bins, strict=True) if n)

    def layer(self, index: int) -> _LayerPart:
        layer = self.prepared.layers[index]
        Y = layer.scaled(self.values[layer.name])
        U, witness, density = self._global(index, layer, Y)
        magnitude = torch.tensor(layer.centres, dtype=torch.float64, device=U.device)
        closeness = layer.closeness(Y, self.classes)
        if not self.stratified:
            return _LayerPart(U, magnitude, witness, density, closeness)
        same_U, same_witness, density = self._same_class(index, layer, Y)
        U, witness = torch.cat([U, same_U]), torch.cat([witness, same_witness])
        return _LayerPart(U, magnitude.repeat(2), witness, density, closeness)

    def scores(self, parts: Sequence[_LayerPart]) -> Float[Tensor, "Q N"]:
        """Density, closeness and the answer's certainty of all rows in the order of branches; large is suspicious."""
        p = self.prepared
        scores = []
        for part, reference in zip(parts, p.closeness, strict=True):
            scores += [-part.density[None], torch.cat([reference, part.closeness], dim=1)]
        if p.output_scores is not None:
            assert self.output is not None, "`Reference.check` lets no frame without it pass"
            scores.append(torch.cat([p.output_scores, output_scores(self.output, p.device)], dim=1))
        return torch.cat([s.double() for s in scores])

    def row_strata(self) -> Int[Tensor, " N"]:
        rows = torch.cat([self.prepared.row_strata, self.classes])
        return rows if self.stratified else torch.zeros_like(rows)

    def p_values(self, scores: Float[Tensor, "Q N"], scalars: ScalarStatistics) -> Float[Tensor, " m"]:
        """Of single rows, each score weighted by what it found in the window as a whole. Density is left out: it counts
        a row's neighbours in the window."""
        places = torch.arange(len(scores), device=scores.device)
        own = (places >= len(SCALARS) * len(self.prepared.layers)) | (places % len(SCALARS) != SCALARS.index("density"))
        weights = scalars.statistics[own, 0].clamp(min=0.0).square() + LEAST_WEIGHT
        return row_p_values(scores[own], self.row_strata(), self.prepared.n, weights)

    def sums(self, values: Float[Tensor, "K N"]) -> Float[Tensor, "K units"]:
        """Sums over the rows of each unit, of both sides."""
        n = self.prepared.n
        if self.mine.are_single and self.theirs.are_single:
            return values
        return torch.cat([self.mine.sums(values[:, :n]), self.theirs.sums(values[:, n:])], dim=1)

    def _global(self, index: int, layer: Layer, Y: Float[Tensor, "m d"]) -> tuple[Tensor, Tensor, Tensor]:
        p, (n, m), G = self.prepared, (self.prepared.n, self.m), len(BANDWIDTH_FACTORS)
        mine = slice(G * index, G * index + G)
        q, r_x, r_y = self.share[mine].clone(), p.row_sums[mine].clone(), torch.zeros(G, m, device=Y.device)
        cross, within = torch.zeros_like(r_y), torch.zeros_like(r_y)
        for rows, kyx, kyy in self._kernel_rows(layer, Y):
            q += _window_share(kyx, kyy, self.whole, self.mine, self.theirs, rows)
            cross[:, rows], within[:, rows] = kyx.sum(2), kyy.sum(2)
            r_x += kyx.sum(1)
        r_y = cross + within
        c = torch.cat([self.mine.sums(r_x), self.theirs.sums(r_y)], dim=1) @ self.Z
        r = torch.cat([r_x, r_y], dim=1)
        U = mmd2(self.weights, q, c, r.double().sum(1, keepdim=True))
        return U, within / (m - 1) - cross / n, _density(r[0], layer, n + m)

    def _kernel_rows(self, layer: Layer, Y: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Window rows in parts small enough for `memory_bytes`: kernels against the reference and the window."""
        floats = len(BANDWIDTH_FACTORS) * (2 * (self.prepared.n + self.m) + 2 * self.Z.shape[1])
        step = max(1, self.prepared.memory_bytes // (4 * floats))
        for start in range(0, self.m, step):
            rows = slice(start, min(start + step, self.m))
            kyy = layer.kernels(Y[rows], Y)
            _zero_diagonal(kyy, start)
            yield rows, layer.kernels(Y[rows], layer.rows), kyy

    def _same_class(self, index: int, layer: Layer, Y: Float[Tensor, "m d"]) -> tuple[Tensor, Tensor, Tensor]:
        """The kernel k(x, x′)·1[same class]: a sum over classes. Constants that no split changes are left out."""
        p, G = self.prepared, len(BANDWIDTH_FACTORS)
        assert p.class_row_sums is not None, "strata were asked of a reference without classes"
        q = torch.zeros(G, self.Z.shape[1], device=Y.device)
        c = torch.zeros_like(q)
        witness = torch.zeros(G, self.m, device=Y.device)
        narrow = torch.cat([p.class_row_sums[G * index], torch.zeros(self.m, device=Y.device)])
        for s, stratum in enumerate(self.strata):
            ref, win = slice(p.starts[s], p.starts[s + 1]), slice(self.spans[s], self.spans[s + 1])
            n_s, m_s = p.counts[s], self.counts[s]
            if m_s == 0 or n_s == 0:
                continue  # all splits agree on such a stratum
            kyx, kyy = layer.kernels(Y[win], layer.rows[ref]), layer.kernels(Y[win], Y[win])
            _zero_diagonal(kyy, 0)
            mine, theirs = self.mine.stratum(s), self.theirs.stratum(s)
            q += p.class_share(s, m_s, self.bin_rows)[G * index : G * index + G]
            q += _window_share(kyx, kyy, stratum, mine, theirs, slice(0, m_s))
            cross, within = kyx.sum(2), kyy.sum(2)
            r_x = p.class_row_sums[G * index : G * index + G, ref] + kyx.sum(1)
            Z = torch.cat([stratum.Zx, stratum.Zy])
            c += torch.cat([mine.sums(r_x), theirs.sums(cross + within)], dim=1) @ Z
            narrow[ref], narrow[p.n :][win] = (
                _density(part, layer, n_s + m_s) for part in (r_x[0], (cross + within)[0])
            )
            witness[:, win] = within / max(m_s - 1, 1) - cross / n_s
        return mmd2(self.weights, q, c), witness, narrow


def _density(r: Float[Tensor, " rows"], layer: Layer, rows: int) -> Float[Tensor, " rows"]:
    """Kernel values a row shares with all others, at the narrowest bandwidth, in whole `DENSITY_STEP`s.

    The centre goes back in, so that a row far from all others has exactly none, whichever side's sums it is in.
    """
    return ((r + layer.centres[0] * (rows - 1)) / DENSITY_STEP).round() * DENSITY_STEP


def _window_share(
    kyx: Float[Tensor, "G b n"], kyy: Float[Tensor, "G b m"], whole: Stratum, mine: Bins, theirs: Bins, rows: slice
) -> Float[Tensor, "G C"]:
    """Σ zy ∘ ([2 Kyx | Kyy] z) over the window rows `rows`, which kyx and kyy hold; one product for all kernels."""
    G = kyy.shape[0]
    sums = torch.cat([mine.sums(kyx) * 2.0, theirs.sums(kyy)], dim=2)
    Zy = whole.Zy
    if theirs.are_single:
        Zy = Zy[rows]
    else:
        units = theirs.unit_of_row[rows].to(sums.device)
        sums = sums.new_zeros(G, Zy.shape[0], sums.shape[2]).index_add_(1, units, sums)
    Z = torch.cat([whole.Zx, whole.Zy])
    return (sums.view(G * Zy.shape[0], -1) @ Z).view(G, Zy.shape[0], -1).mul_(Zy).sum(1)


def _zero_diagonal(kyy: Float[Tensor, "G b m"], start: int) -> None:
    """A row is no pair with itself."""
    kyy[:, :, start:].diagonal(dim1=1, dim2=2).zero_()
