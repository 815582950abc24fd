"""What every per-sample detector is, and what the family of them answers. No detector lives here.

Frame -> Rows -> SampleDetector.score, one of each -> suspicion -> conformal p-value -> decision
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hydrophone.detectors.samples.rows import Rows

__all__ = ["ABSTAIN", "ACCEPT", "DECISIONS", "REJECT", "AttackGuess", "GateAnswer", "SampleDetector", "SampleVerdicts"]

ACCEPT: Final = 0
ABSTAIN: Final = 1
REJECT: Final = 2
DECISIONS: Final = ("accept", "abstain", "reject")
"""The decisions by their number."""


@runtime_checkable
class SampleDetector(Protocol):
    """Fitted on natural rows; how differs from one to the next, so each has a `fit` of its own."""

    def measures(self) -> tuple[str, ...]:
        """What `score` gives, in order."""
        ...

    def score(self, rows: Rows) -> Mapping[str, NDArray[np.float64]]:
        """One `[m]` array a measure; NaN where it cannot be had, and `rows` then knows why."""
        ...

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """All there is to it, for a safetensors file."""
        ...


@dataclass(frozen=True, slots=True)
class AttackGuess:
    """Which attack a flagged row looks like. None: too close to call, and the probability is the best one's."""

    family: str | None
    family_probability: float
    attack: str | None
    attack_probability: float

    @property
    def has_abstained(self) -> bool:
        return self.family is None


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """Arrays over the rows of one frame: log-likelihood of the embedding, conformal p-value over all layers, and
    whether that is above the gate's level. NaN, and not accepted, where a row could not be judged: the reasons say why.
    """

    accepted: NDArray[np.bool_]
    log_likelihood: NDArray[np.float32]
    p_value: NDArray[np.float32]
    reasons: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class SampleVerdicts:
    """Arrays over the m rows of one frame.

    `decision`: 0 accept, 1 abstain, 2 reject. `suspicion`: higher is more suspicious; NaN where nothing could be
    judged. `p_value`: conformal rank of the suspicion among clean rows that nothing was fitted on, never 0, NaN with
    the suspicion; such a row is abstained on. `scores`: each measure by name, as its paper defines it. `attacks`: only
    of rows not accepted, where attacks were known at fitting. `reasons`: what could not be judged, and why.
    """

    decision: NDArray[np.int8]
    suspicion: NDArray[np.float32]
    p_value: NDArray[np.float32]
    scores: Mapping[str, NDArray[np.float32]]
    attacks: Sequence[AttackGuess | None]
    reasons: Sequence[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.decision)

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """Rows not accepted."""
        return np.asarray(self.decision != ACCEPT)
