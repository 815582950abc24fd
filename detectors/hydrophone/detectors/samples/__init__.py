"""A verdict for each row: how unsure the model was, how far the row lies from clean ones, which attack it looks like.

Fitted beside a reference and kept in its folder; windows and their tests do not live here.
"""

from hydrophone.detectors.samples.family import SampleDetectors
from hydrophone.detectors.samples.fitting import fit_samples
from hydrophone.detectors.samples.seam import (
    ABSTAIN,
    ACCEPT,
    DECISIONS,
    REJECT,
    AttackGuess,
    GateAnswer,
    SampleVerdicts,
)
from hydrophone.detectors.samples.uncertainty import mc_measures

__all__ = [
    "ABSTAIN",
    "ACCEPT",
    "DECISIONS",
    "REJECT",
    "AttackGuess",
    "GateAnswer",
    "SampleDetectors",
    "SampleVerdicts",
    "fit_samples",
    "mc_measures",
]
