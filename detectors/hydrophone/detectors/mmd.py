"""The unbiased MMD² as an affine function of two sums. Which rows play the window is decided elsewhere."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["MmdWeights", "mmd2"]


class MmdWeights(NamedTuple):
    """U = a·q + b·c + T·t, with q = zᵀKz, c = zᵀK1, T = 1ᵀK1 and K of zero diagonal.

    From Gretton et al., JMLR 13 (2012), equation 3: the mean of K within the reference (n rows) plus the mean within
    the window (m rows) less twice the mean across; 1ᵀKz = q + (the cross sum), and the reference's own sum is
    T − 2c + q.
    """

    a: float
    b: float
    t: float

    @classmethod
    def of(cls, n: int, m: int) -> "MmdWeights":
        """Needs n >= 2 and m >= 2."""
        within_window, within_reference, across = 1 / (m * (m - 1)), 1 / (n * (n - 1)), 2 / (n * m)
        return cls(within_window + within_reference + across, -2 * within_reference - across, within_reference)


def mmd2(weights: MmdWeights, q: Tensor, c: Tensor, total: Tensor | float = 0.0) -> Tensor:
    """In float64: the three terms nearly cancel. Without `total` it is short by a constant, alike in every column."""
    return weights.a * q.double() + weights.b * c.double() + weights.t * total
