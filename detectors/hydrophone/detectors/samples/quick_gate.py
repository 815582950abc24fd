"""A layer's mixture for a handful of rows at once, in numpy: what `gate.py` says, without what a tensor costs to make.

For who asks before a model answers; large batches are quicker as tensors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydrophone.detectors.samples.gate import Mixture

__all__ = ["QuickMixture"]

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class QuickMixture:
    """`mean` and `inverse_scale` `[D]`, `axes` `[D, k]`; `whiten` `[k, G k]` and `offsets` `[G k]`, of which `members`
    `[G k, G]` says whose component each is; `constants` `[G]`; `noise`, of the `rest` dimensions beyond the axes, on a
    variance of `beyond`."""

    mean: Array
    inverse_scale: Array
    axes: Array
    whiten: Array
    offsets: Array
    members: Array
    constants: Array
    beyond: float
    rest: int

    @classmethod
    def of(cls, mixture: Mixture) -> "QuickMixture":
        arrays: dict[str, NDArray[Any]] = {
            name: np.asarray(array, np.float32) for name, array in mixture.arrays().items()
        }
        G, k = arrays["offsets"].shape
        return cls(
            mean=arrays["mean"],
            inverse_scale=np.reciprocal(arrays["scale"]),
            axes=np.ascontiguousarray(arrays["axes"]),
            whiten=np.ascontiguousarray(arrays["whiten"]),
            offsets=arrays["offsets"].reshape(G * k),
            members=np.repeat(np.eye(G, dtype=np.float32), k, axis=0),
            constants=arrays["constants"],
            beyond=float(arrays["beyond"].item()),
            rest=len(arrays["mean"]) - k,
        )

    @property
    def width(self) -> int:
        return len(self.mean)

    def __call__(self, values: Array) -> NDArray[np.float64]:
        """Log-likelihoods of rows `[m, D]`; not finite where a row is not."""
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (values - self.mean) * self.inverse_scale
            along = scaled @ self.axes
            seen = along @ self.whiten - self.offsets
            terms = self.constants - (seen * seen) @ self.members / 2
            most = terms.max(1)
            found = most + np.log(np.exp(terms - most[:, None]).sum(1))
            if self.rest:
                residual = np.einsum("ij,ij->i", scaled, scaled) - np.einsum("ij,ij->i", along, along)
                found -= (np.maximum(residual, 0) / self.beyond + self.rest * np.log(self.beyond * 2 * np.pi)) / 2
            return np.asarray(found, np.float64)
