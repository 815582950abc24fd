"""How severe, how sure, how risky: one table for all forms. Which severity an incident has is not decided here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hydrophone.schemas.alert import Severity
from hydrophone.schemas.incidents import Incident

__all__ = ["LEVELS", "Confidence", "Level", "confidence_of", "level_of", "risk_of"]


@dataclass(frozen=True, slots=True)
class Level:
    """One severity, as each form says it. `risk` is a range of a hundred: within it, confidence decides."""

    caption: str
    ocsf_id: int
    rank: int
    cef: int
    syslog: int
    risk: tuple[int, int]


LEVELS: Final[Mapping[Severity, Level]] = {
    "low": Level("Low", ocsf_id=2, rank=1, cef=3, syslog=5, risk=(21, 46)),
    "medium": Level("Medium", ocsf_id=3, rank=2, cef=5, syslog=4, risk=(47, 72)),
    "high": Level("High", ocsf_id=4, rank=3, cef=8, syslog=3, risk=(73, 98)),
    "critical": Level("Critical", ocsf_id=5, rank=4, cef=10, syslog=2, risk=(99, 100)),
}
"""`rank` is the number of OCSF's priority and risk level; LEEF's `sev` is CEF's severity; risk ranges are Elastic's.

OCSF's Fatal says that it is too late to act, which no test can know.
"""


@dataclass(frozen=True, slots=True)
class Confidence:
    caption: str
    ocsf_id: int


_CONFIDENCE: Final = ((0.99, Confidence("High", 3)), (0.9, Confidence("Medium", 2)), (0.0, Confidence("Low", 1)))


def level_of(incident: Incident) -> Level:
    return LEVELS[incident.severity]


def confidence_of(incident: Incident) -> Confidence:
    return next(level for least, level in _CONFIDENCE if incident.confidence >= least)


def risk_of(incident: Incident) -> int:
    """0 to 100; no less for a higher severity, nor for a higher confidence in the same."""
    low, high = level_of(incident).risk
    return low + int((high - low) * incident.confidence)
