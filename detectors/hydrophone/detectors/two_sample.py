"""The plain two-sample test: unbiased MMD² and its permutation p-value. References and layers do not live here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hydrophone.detectors.device import resolve_device
from hydrophone.detectors.gram import UpperGram, upper_distances, upper_kernels
from hydrophone.detectors.kernels import median_of
from hydrophone.detectors.mmd import MmdWeights, mmd2
from hydrophone.detectors.permutation import JointNull, all_splits, splits, studentise
from hydrophone.schemas.errors import ConfigurationError

__all__ = ["TwoSampleResult", "mmd_permutation_test"]


LARGEST: Final = 1e15
"""In magnitude: squares of larger numbers, summed over the features, overflow float32."""


CENTRE_PAIRS: Final = 65_536


@dataclass(frozen=True, slots=True)
class TwoSampleResult:
    """`statistic` is the unbiased MMD² (the largest studentised one, given several bandwidths); `null` holds its
    value for each of the `permutations`. `bandwidths` are the kernels' σ. A sample of fewer than two rows is not
    tested: `p_value` and `statistic` are None.
    """

    statistic: float | None
    p_value: float | None
    permutations: int
    n: int
    m: int
    bandwidths: tuple[float, ...] = ()
    null: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)


def mmd_permutation_test(
    X: ArrayLike | Tensor,
    Y: ArrayLike | Tensor,
    *,
    permutations: int = 999,
    seed: int = 0,
    device: str = "auto",
    bandwidth_factors: Sequence[float] = (1.0,),
) -> TwoSampleResult:
    """Do the rows of X `[n, d]` and Y `[m, d]` come from one distribution? Exact for exchangeable rows.

    Gaussian kernels at `bandwidth_factors` times the pooled median distance; the features are not scaled. Where no
    more than `permutations + 1` splits exist all are looked at, and `permutations` in the result says how many those
    were. Memory: 4 (n + m) (n + m + permutations) bytes and a little. Gretton et al., JMLR 13 (2012), equation 3.
    """
    target = resolve_device(device)
    _check(permutations, seed, bandwidth_factors)
    first, second = _rows("X", X, target), _rows("Y", Y, target)
    n, m = first.shape[0], second.shape[0]
    if first.shape[1] != second.shape[1]:
        raise ConfigurationError(f"`X` and `Y` must have as many columns; got {first.shape[1]} and {second.shape[1]}")
    if min(n, m) < 2:
        return TwoSampleResult(None, None, 0, n, m)
    pooled = torch.cat([first, second])
    pooled -= pooled.mean(0)
    gram, bandwidths, offset = _pooled_gram(pooled, bandwidth_factors)
    Z = _splits(n, m, permutations, seed, target)
    row_sums = gram.row_sums()
    U = mmd2(MmdWeights.of(n, m), gram.quadratic(Z), row_sums @ Z, row_sums.double().sum(1, keepdim=True))
    S = studentise(U, offset.double())
    joint = JointNull(S)
    value = U[0] if len(bandwidths) == 1 else joint.maxima
    null = value[1:].cpu().numpy()
    return TwoSampleResult(float(value[0]), joint.p_value(), Z.shape[1] - 1, n, m, bandwidths, null)


def _check(permutations: int, seed: int, bandwidth_factors: Sequence[float]) -> None:
    if permutations < 1:
        raise ConfigurationError(f"`permutations` must be at least 1; got {permutations}")
    if seed < 0:
        raise ConfigurationError(f"`seed` must not be negative; got {seed}")
    if not bandwidth_factors or not all(0 < factor < math.inf for factor in bandwidth_factors):
        raise ConfigurationError(f"`bandwidth_factors` must be one or more positive numbers; got {bandwidth_factors}")


def _rows(name: str, values: ArrayLike | Tensor, device: torch.device) -> Float[Tensor, "n d"]:
    rows = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, np.float32))
    rows = rows.to(device, torch.float32)
    if rows.ndim != 2:
        raise ConfigurationError(f"`{name}` must have two axes, rows and features; got shape {tuple(rows.shape)}")
    if not bool((rows.abs() <= LARGEST).all()):
        raise ConfigurationError(f"`{name}` must hold numbers of at most {LARGEST:g}; drop rows with NaN or infinity")
    return rows


def _pooled_gram(
    pooled: Float[Tensor, "N d"], factors: Sequence[float]
) -> tuple[UpperGram, tuple[float, ...], Float[Tensor, " G"]]:
    """The kernels of the pooled rows, their bandwidths, and each kernel's mean (taken off, see `upper_kernels`)."""
    rows = pooled.shape[0]
    distances = list(upper_distances(pooled))
    upper = torch.cat([part for _, block in distances for part in _strict_upper(block)])
    median = median_of(upper)
    bandwidths = tuple(factor * median for factor in factors)
    some = upper[:CENTRE_PAIRS]  # any constant near the kernel's mean will do: MMD² does not change with it
    centres = [float(torch.exp(some * (-0.5 / (h * h))).mean()) for h in bandwidths]
    blocks = [(start, upper_kernels(block, bandwidths, centres)) for start, block in distances]
    gram = UpperGram(rows, len(bandwidths), lambda: iter(blocks))
    return gram, bandwidths, torch.tensor(centres, device=pooled.device)


def _strict_upper(block: Float[Tensor, "b rest"]) -> tuple[Float[Tensor, " triangle"], Float[Tensor, " others"]]:
    """What lies above the diagonal: a triangle, gathered, and everything beside it, flat. Gathering is slow."""
    b = block.shape[0]
    above = torch.triu_indices(b, b, offset=1, device=block.device)
    return block[above[0], above[1]], block[:, b:].reshape(-1)


@lru_cache(maxsize=8)
def _splits(n: int, m: int, permutations: int, seed: int, device: torch.device) -> Float[Tensor, "N C"]:
    """Kept: drawing the splits costs as much as a small test."""
    Z = all_splits(n, m, permutations + 1)
    return torch.from_numpy(splits(n, m, permutations, (seed, n, m)) if Z is None else Z).to(device)
