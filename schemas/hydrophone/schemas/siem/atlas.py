"""MITRE ATLAS: the techniques Hydrophone may name, pinned. Which evidence speaks for which is not decided here.

Source: `dist/ATLAS.yaml` of mitre-atlas/atlas-data, release v5.6.1, which calls itself 5.6.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["FRAMEWORK", "TACTICS", "TECHNIQUES", "VERSION", "Technique", "address", "parent_of"]

VERSION: Final = "5.6.0"
FRAMEWORK: Final = "MITRE ATLAS"

TACTICS: Final[Mapping[str, str]] = {
    "AML.TA0000": "AI Model Access",
    "AML.TA0001": "AI Attack Staging",
    "AML.TA0004": "Initial Access",
    "AML.TA0007": "Defense Evasion",
    "AML.TA0010": "Exfiltration",
    "AML.TA0011": "Impact",
}


@dataclass(frozen=True, slots=True)
class Technique:
    name: str
    tactics: tuple[str, ...] = ()
    """Of a sub-technique none: they are its parent's."""


TECHNIQUES: Final[Mapping[str, Technique]] = {
    "AML.T0015": Technique("Evade AI Model", ("AML.TA0004", "AML.TA0007", "AML.TA0011")),
    "AML.T0024": Technique("Exfiltration via AI Inference API", ("AML.TA0010",)),
    "AML.T0024.002": Technique("Extract AI Model"),
    "AML.T0040": Technique("AI Model Inference API Access", ("AML.TA0000",)),
    "AML.T0042": Technique("Verify Attack", ("AML.TA0001",)),
    "AML.T0043": Technique("Craft Adversarial Data", ("AML.TA0001",)),
    "AML.T0043.001": Technique("Black-Box Optimization"),
}


def parent_of(technique: str) -> str:
    """The technique itself where it is no sub-technique."""
    return ".".join(technique.split(".")[:2])


def address(technique: str) -> str:
    return f"https://atlas.mitre.org/techniques/{technique}"
