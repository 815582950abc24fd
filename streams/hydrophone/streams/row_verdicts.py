"""What the detectors said of one row, as it travels: whole on `verdicts`, short beside a window's suspect. Pure."""

from typing import Any, Final

import numpy as np

from hydrophone.detectors.samples import SampleVerdicts
from hydrophone.schemas.score import Attack, SuspectVerdict
from hydrophone.schemas.verdict import DECISIONS, Verdict

__all__ = ["LABEL_LIMIT", "label", "row_verdict", "suspect_verdict"]

LABEL_LIMIT: Final = 200
"""Characters of a label that is repeated: whoever sends a row must not choose how large an event becomes."""


def row_verdict(
    verdicts: SampleVerdicts, at: int, row: int, sample_id: str | None = None, client_id: str | None = None
) -> Verdict:
    """Row `at` of what the detectors said, as it travels. What is not finite was not measured."""
    return Verdict(
        row=row,
        decision=DECISIONS[int(verdicts.decision[at])],
        suspicion=_number(verdicts.suspicion[at]),
        p_value=_number(verdicts.p_value[at]),
        scores={name: value for name, values in verdicts.scores.items() if (value := _number(values[at])) is not None},
        attack=_attack(verdicts, at),
        reasons=tuple(verdicts.reasons[at]),
        sample_id=sample_id,
        client_id=client_id,
    )


def suspect_verdict(verdicts: SampleVerdicts, at: int) -> SuspectVerdict:
    """The same in short, beside a window's suspect."""
    return SuspectVerdict(
        decision=DECISIONS[int(verdicts.decision[at])],
        suspicion=_number(verdicts.suspicion[at]),
        p_value=_number(verdicts.p_value[at]),
        attack=_attack(verdicts, at),
    )


def _attack(verdicts: SampleVerdicts, at: int) -> Attack | None:
    guess = verdicts.attacks[at]
    if guess is None:
        return None
    return Attack(
        family=guess.family,
        family_probability=guess.family_probability,
        name=guess.attack,
        probability=guess.attack_probability,
    )


def _number(value: Any) -> float | None:
    """The shortest decimal that is this float32 again."""
    number = float(str(np.float32(value)))
    return number if np.isfinite(number) else None


def label(text: str | None) -> str | None:
    return text and text[:LABEL_LIMIT]
