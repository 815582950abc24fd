"""A frame's arrays as detectors read them: on the device, checked once, with a named reason for all that is missing.

A row with a value that is not finite stays in its place, as zeros, and is known as bad: scores of it become NaN.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydrophone.schemas.frame import Frame

__all__ = ["MEASURES", "Rows"]

MEASURES: Final = ("variance", "entropy", "mutual_information", "confidence")
"""Of MC dropout, in the order of the paper."""


LARGEST: Final = 1e12
"""What lies beyond counts as this much: squares must stay finite, or the farthest rows of all would have no measure."""


class Rows:
    """Read by one thread. Every reason noted belongs to some rows of this frame, or to all."""

    def __init__(self, frame: Frame, device: torch.device) -> None:
        self.frame, self.device = frame, device
        self._layers: dict[str, Tensor | None] = {}
        self._bad: dict[str, NDArray[np.bool_] | None] = {}
        self._reasons: dict[str, NDArray[np.bool_] | None] = {}

    def __len__(self) -> int:
        return len(self.frame)

    def layer(self, name: str, width: int) -> Tensor | None:
        """`[m, width]` float32; None, and a reason, where the frame does not bring it."""
        if name not in self._layers:
            self._layers[name] = self._matrix(f"layer.{name}", self.frame.layers.get(name), width)
        return self._layers[name]

    def output(self, width: int) -> Tensor | None:
        if "(output)" not in self._layers:
            self._layers["(output)"] = self._matrix("output", self.frame.output, width)
        return self._layers["(output)"]

    def bad(self, *tensors: str) -> NDArray[np.bool_] | None:
        """Rows that are not finite in some of the tensors, by their names in the frame; None: none is."""
        masks = [mask for name in tensors if (mask := self._bad.get(name)) is not None]
        return np.logical_or.reduce(masks) if masks else None

    def measure(self, name: str) -> NDArray[np.float64] | None:
        """One of `MEASURES`, as the service computed it; None, and a reason, where it did not."""
        tensor = f"uncertainty.{name}"
        values = (self.frame.uncertainty or {}).get(name)
        if values is None:
            self.note(f"missing_tensor:{tensor}")
            return None
        found = values.astype(np.float64)
        bad = ~np.isfinite(found)
        if bad.any():
            self.note(f"not_finite:{tensor}", bad)
            found[bad] = np.nan
        return found

    def classes(self) -> NDArray[np.int64] | None:
        classes = self.frame.classes()
        if classes is None:
            self.note("missing_tensor:predicted")
        return classes

    def note(self, reason: str, rows: NDArray[np.bool_] | None = None) -> None:
        """Say why some rows, or all, cannot be judged by something."""
        known = self._reasons.get(reason, np.zeros(len(self), np.bool_))
        self._reasons[reason] = None if known is None or rows is None else known | rows

    def reasons(self) -> Sequence[tuple[str, ...]]:
        """Per row, in alphabetical order."""
        for_all = tuple(sorted(reason for reason, rows in self._reasons.items() if rows is None))
        found = [for_all] * len(self)
        for reason, rows in self._reasons.items():
            for row in np.flatnonzero(rows) if rows is not None else ():
                found[row] = tuple(sorted((*found[row], reason)))
        return found

    def _matrix(self, tensor: str, values: NDArray[np.floating] | None, width: int) -> Tensor | None:
        if values is None:
            self.note(f"missing_tensor:{tensor}")
            return None
        if values.shape[1] != width:
            self.note(f"wrong_dimension:{tensor}")
            return None
        found = torch.from_numpy(np.array(values, np.float32)).to(self.device)
        if float(found.abs().amax()) <= LARGEST:  # the common answer in one pass: NaN is not below anything
            return found
        bad = ~torch.isfinite(found).all(1)
        huge = (found.abs() > LARGEST).any(1) & ~bad
        for reason, which in (("not_finite", bad), ("out_of_range", huge)):
            if bool(which.any()):
                self.note(f"{reason}:{tensor}", which.cpu().numpy())
        self._bad[tensor] = bad.cpu().numpy() if bool(bad.any()) else None
        return torch.where(bad[:, None], torch.zeros_like(found), found).clamp(-LARGEST, LARGEST)
