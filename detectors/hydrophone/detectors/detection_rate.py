"""The layer-wise method's published metric: the share of small re-draws of a window that differ from the reference.

(LADIS, "Detect adversarial inputs using Amazon SageMaker Model Monitor and Amazon SageMaker Debugger", AWS blog, 2022:
100 tests of 100 rows against 100.) Evidence beside the window test, never an alarm: its re-draws share their rows.

A re-draw pairs each of its window rows y_i with a reference row x_i of the same stratum. Under the null either could be
the window's, so swapping them, ε_i = −1, leaves the law alone, and with
    h_ij = k(x_i, x_j) + k(y_i, y_j) − k(x_i, y_j) − k(x_j, y_i),    U(ε) = Σ_{i≠j} ε_i ε_j h_ij / (s (s − 1))
U(1) is MMD² and the other U(ε) are its exact null (Schrab et al., MMDAgg, JMLR 24, 2023, section 3.2.2). All re-draws
share the signs: their null is one product of [R·s, s] with [s, B + 1]. As Σ ε_i ε_j K_ij does not change when K is
transposed, the last two terms are one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from hydrophone.detectors.kernels import gaussian, squared_distances
from hydrophone.detectors.permutation import p_values, studentise

__all__ = ["REDRAWS", "REDRAW_ROWS", "SIGNS", "DetectionRates", "RatePool", "Redraws", "baseline_rate"]

REDRAWS: Final = 100
REDRAW_ROWS: Final = 100
"""Most rows of a re-draw, on either side; a window of fewer is drawn whole, and the reference side alone varies."""

SIGNS: Final = 99
"""Sign vectors of a re-draw's null, or as many as its level needs: each re-draw is exact with any number."""

POOL_ROWS: Final = 2_048
"""Most rows of either side that re-draws choose from: it bounds their kernel matrix to 16 MiB a layer."""

MIN_PAIRS: Final = 20
"""Fewer are not re-drawn, as fewer rows are not tested."""

MAGNITUDE: Final = 1e4
"""To `studentise`: a null narrower than 1e-6 is what float32 leaves of three kernel values that cancel."""


@dataclass(frozen=True, slots=True)
class DetectionRates:
    """Shares in [0, 1]: of all layers together (largest studentised statistic), and of each layer alone."""

    joint: float
    layers: dict[str, float]


@dataclass(frozen=True, slots=True)
class RatePool:
    """One layer's scaled rows to draw from, and its kernels' σ; the kernels are summed, as the method does."""

    rows: Float[Tensor, "P d"]
    bandwidths: tuple[float, ...]

    def kernel(self, X: Float[Tensor, "a d"], Y: Float[Tensor, "b d"]) -> Float[Tensor, "a b"]:
        squared = squared_distances(X, Y)
        total = gaussian(squared, self.bandwidths[0])
        for bandwidth in self.bandwidths[1:]:
            total += gaussian(squared, bandwidth)
        return total


class Redraws:
    """Draws from one reference, `strata[i]` being the stratum of its row i, ascending. Everything random is fixed by
    `seed` and the window's size. `memory_bytes` bounds the kernels kept from one window to the next.
    """

    def __init__(
        self, pools: Mapping[str, RatePool], strata: NDArray[np.int64], *, alpha: float, seed: int, memory_bytes: int
    ) -> None:
        self._alpha, self._seed = alpha, seed
        columns = max(SIGNS, math.ceil(1 / alpha - 1e-9) - 1)
        self._device = next(iter(pools.values())).rows.device
        kept = np.sort(self._generator(0).permutation(len(strata))[:POOL_ROWS])
        rows = torch.from_numpy(kept).to(self._device)
        self._pools = {name: RatePool(pool.rows[rows], pool.bandwidths) for name, pool in pools.items()}
        self._strata = strata[kept]
        keys = self._generator(1).random((REDRAWS, len(kept)))
        self._any_order = np.argsort(keys, axis=1)
        self._class_order = np.argsort(keys + self._strata, axis=1)
        signs = self._generator(2).integers(0, 2, (REDRAW_ROWS, columns + 1)).astype(np.float32) * 2 - 1
        signs[:, 0] = 1.0
        self._signs = torch.from_numpy(signs).to(self._device)
        fits = 4 * len(pools) * len(kept) ** 2 <= memory_bytes
        self._within = {name: pool.kernel(pool.rows, pool.rows) for name, pool in self._pools.items()} if fits else {}
        self._fixed: dict[str, Tensor] = {}

    def rates(
        self, window: Mapping[str, Float[Tensor, "m d"]], strata: NDArray[np.int64], *, is_stratified: bool
    ) -> DetectionRates | None:
        """Of scaled rows, in an order that owes nothing to their arrival; None with fewer than 20 to pair."""
        pairs = self._pairs(strata, is_stratified=is_stratified)
        if pairs is None:
            return None
        null = torch.stack([self._null(name, window[name], pairs) for name in sorted(window)])
        joint = null.amax(0)
        per_layer = [self._rate(layer) for layer in null]
        return DetectionRates(self._rate(joint), dict(zip(sorted(window), per_layer, strict=True)))

    def _pairs(self, strata: NDArray[np.int64], *, is_stratified: bool) -> "_Pairs | None":
        """Which window row stands against which reference row. A class of which a re-draw holds more window rows than
        there are reference rows leaves the rest without a partner."""
        ours = (strata if is_stratified else np.zeros_like(strata))[:POOL_ROWS]
        theirs = self._strata if is_stratified else np.zeros_like(self._strata)
        sizes = np.bincount(theirs, minlength=int(ours.max(initial=0)) + 1)
        usable = np.flatnonzero(sizes[ours] > 0)
        usable = usable[np.argsort(ours[usable], kind="stable")]
        s = min(REDRAW_ROWS, len(usable))
        if s < MIN_PAIRS:
            return None
        drawn = self._drawn(len(usable), s)
        strata_drawn = ours[usable][drawn]  # ascending in each re-draw
        first = np.diff(strata_drawn, axis=1, prepend=-1) != 0
        place = np.arange(s) - np.maximum.accumulate(np.where(first, np.arange(s), 0), axis=1)
        is_paired = place < sizes[strata_drawn]
        starts = np.cumsum(sizes) - sizes
        columns = np.where(is_paired, starts[strata_drawn] + place, 0)
        order = self._class_order if is_stratified else self._any_order
        partners = np.take_along_axis(order, np.broadcast_to(columns, (REDRAWS, s)), axis=1)
        return _Pairs(
            self._numbers(usable[drawn]),
            self._numbers(partners),
            None if is_paired.all() else torch.from_numpy(is_paired).to(self._device, torch.float32),
            is_fixed=not is_stratified and s == REDRAW_ROWS,
        )

    def _drawn(self, rows: int, s: int) -> NDArray[np.intp]:
        """s of so many rows for each re-draw, ascending, `[R, s]`; `[1, s]` where all are drawn."""
        if rows == s:
            return np.arange(s)[None]
        keys = self._generator(3, rows).random((REDRAWS, rows))
        return np.sort(np.argpartition(keys, s - 1, axis=1)[:, :s], axis=1)

    def _null(self, name: str, Y: Float[Tensor, "m d"], pairs: "_Pairs") -> Float[Tensor, "R C"]:
        """Studentised U of one layer under every sign vector, the observed one first."""
        s = pairs.reference.shape[1]
        H = self._reference_kernels(name, pairs)
        pool, Y = self._pools[name], Y[:POOL_ROWS]
        H = H + _chosen(pool.kernel(Y, Y), pairs.window, pairs.window)
        H -= _chosen(pool.kernel(Y, pool.rows).mul_(2.0), pairs.window, pairs.reference)
        H.diagonal(dim1=1, dim2=2).zero_()
        if pairs.is_paired is not None:
            H *= pairs.is_paired[:, :, None] * pairs.is_paired[:, None, :]
        E = self._signs[:s]
        U = (H.view(REDRAWS * s, s) @ E).view(REDRAWS, s, -1).mul_(E).sum(1).double() / (s * (s - 1))
        return studentise(U, torch.full((REDRAWS,), MAGNITUDE, dtype=torch.float64, device=U.device))

    def _reference_kernels(self, name: str, pairs: "_Pairs") -> Float[Tensor, "R s s"]:
        if pairs.is_fixed and name in self._fixed:
            return self._fixed[name]
        pool, within = self._pools[name], self._within.get(name)
        if within is None:
            within = pool.kernel(pool.rows, pool.rows)
        chosen = _chosen(within, pairs.reference, pairs.reference)
        if pairs.is_fixed and self._within:
            self._fixed[name] = chosen
        return chosen

    def _numbers(self, rows: NDArray[np.intp]) -> Int[Tensor, "draws s"]:
        """32 bits: gathering by them takes two thirds of the time."""
        return torch.from_numpy(rows.astype(np.int32)).to(self._device)

    def _rate(self, null: Float[Tensor, "R C"]) -> float:
        return float((p_values(null, null[:, 0]) <= self._alpha).double().mean())

    def _generator(self, *tag: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, *tag])))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Row numbers of both sides; one draw of the window side stands for all where it is always whole. `is_paired` is 0
    where a window row has no partner, None where all have. `is_fixed`: the reference side is the same for all windows.
    """

    window: Int[Tensor, "draws s"]
    reference: Int[Tensor, "R s"]
    is_paired: Float[Tensor, "draws s"] | None
    is_fixed: bool


def baseline_rate(
    pools: Mapping[str, RatePool], strata: NDArray[np.int64], *, alpha: float, seed: int, is_stratified: bool
) -> float | None:
    """The joint rate of the reference against itself: the first half of its rows plays a window, the others are drawn
    from. Rows come in random order, and none of either half was fitted on, so the halves are exchangeable. None where
    a half has fewer than 200 rows: its re-draws would be one and the same, their rate all or nothing.
    """
    half = len(strata) // 2
    if half < 2 * REDRAW_ROWS:
        return None
    order = half + np.argsort(strata[half:], kind="stable")
    rest = {name: RatePool(pool.rows[torch.from_numpy(order)], pool.bandwidths) for name, pool in pools.items()}
    redraws = Redraws(rest, strata[order], alpha=alpha, seed=seed, memory_bytes=0)
    window = {name: pool.rows[:half] for name, pool in pools.items()}
    rates = redraws.rates(window, strata[:half], is_stratified=is_stratified)
    return None if rates is None else rates.joint


def _chosen(
    K: Float[Tensor, "a b"], rows: Int[Tensor, "draws s"], columns: Int[Tensor, "others s"]
) -> Float[Tensor, "redraws s s"]:
    """K at every re-draw's rows and columns."""
    places = rows[:, :, None] * K.shape[1] + columns[:, None, :]
    return K.view(-1).index_select(0, places.view(-1)).view(places.shape)
