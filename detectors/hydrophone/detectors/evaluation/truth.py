"""What labelled frames say about their rows: which source each is of. Nothing is judged here."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame, concat

__all__ = ["NATURAL", "NOISY", "UNNAMED", "Truth"]

NATURAL: Final = "natural"
NOISY: Final = "noisy"
UNNAMED: Final = "unnamed"
ADVERSARIAL: Final = 1

LABELS: Final = {0: NATURAL, 1: UNNAMED, 2: NOISY}


@dataclass(frozen=True)
class Truth:
    """All rows in one frame, and of each its source: `natural`, `noisy`, or the attack's name. A row with a name in
    `attack` and another label than 1 (an out-of-distribution set, say) is of a source of that name, not hostile."""

    frame: Frame
    sources: NDArray[np.object_]
    is_hostile: NDArray[np.bool_]

    @classmethod
    def of(cls, frames: Iterable[Frame]) -> "Truth":
        """Raises `FrameInvalid` where frames lack labels, or there is nothing to compare."""
        frame = concat(list(frames))
        if frame.label is None:
            raise FrameInvalid(
                "missing_tensor:label",
                "frames to evaluate on carry `label` (0 natural, 1 adversarial, 2 noisy) in every row; some lack it",
            )
        unknown = sorted(set(np.unique(frame.label).tolist()) - set(LABELS))
        if unknown:
            raise FrameInvalid("bad_label", f"`label` must be 0 natural, 1 adversarial or 2 noisy; got {unknown}")
        names = frame.attack if frame.attack is not None else [None] * len(frame)
        sources = [name or LABELS[label] for name, label in zip(names, frame.label.tolist(), strict=True)]
        truth = cls(frame, np.array(sources, object), frame.label == ADVERSARIAL)
        if truth.is_natural.sum() < 2 or not truth.is_hostile.any():
            raise FrameInvalid(
                "one_sided",
                "frames to evaluate on hold natural rows (label 0) and adversarial ones (label 1); got "
                f"{int(truth.is_natural.sum())} and {int(truth.is_hostile.sum())}",
            )
        return truth

    @property
    def is_natural(self) -> NDArray[np.bool_]:
        return np.asarray(self.sources == NATURAL)

    @property
    def attacks(self) -> tuple[str, ...]:
        return tuple(str(name) for name in np.unique(self.sources[self.is_hostile]))

    @property
    def others(self) -> tuple[str, ...]:
        """Sources that are no attack, natural rows first."""
        rest = {str(name) for name in self.sources[~self.is_hostile]} - {NATURAL}
        return (NATURAL, *sorted(rest))

    def of_source(self, name: str) -> NDArray[np.intp]:
        return np.flatnonzero(self.sources == name)
