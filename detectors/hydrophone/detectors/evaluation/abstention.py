"""What abstaining is worth: how often it happens, and whether what is decided, or named, is right more often for it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.detectors.evaluation.curves import Rate, rate
from hydrophone.detectors.evaluation.truth import NATURAL, Truth
from hydrophone.detectors.samples import ABSTAIN, ACCEPT, REJECT, AttackGuess, SampleVerdicts

__all__ = ["Abstention", "Level", "Naming", "Share", "abstention", "levels", "naming"]

LEVELS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
BINS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Level:
    """Natural rows with p at most `level`: as many as the level says, where the calibration holds."""

    level: float
    natural: Rate


@dataclass(frozen=True, slots=True)
class Abstention:
    """`decided`: rows not abstained on; `right`: of those, natural ones accepted and hostile ones rejected; `forced`:
    the same share had the abstained rows been rejected (`as_reject`) or accepted (`as_accept`)."""

    decided: Rate
    right: Rate
    as_reject: Rate
    as_accept: Rate


@dataclass(frozen=True, slots=True)
class Share:
    """Names given with a probability within [low, high): how many, and how many of them were right."""

    low: float
    high: float
    mean_probability: float | None
    right: Rate


@dataclass(frozen=True, slots=True)
class Naming:
    """Of hostile rows that were flagged and of a known attack: families and attacks named, and right; `reliability` of
    the family's probability, whether it was named or not."""

    families_named: Rate
    families_right: Rate
    attacks_named: Rate
    attacks_right: Rate
    reliability: tuple[Share, ...]


def levels(p_values: NDArray[np.floating], truth: Truth) -> tuple[Level, ...]:
    natural = p_values[truth.is_natural]
    known = natural[np.isfinite(natural)]
    return tuple(Level(level, rate(int((known <= level + 1e-9).sum()), len(known))) for level in LEVELS)


def abstention(decision: NDArray[np.int8], truth: Truth) -> Abstention:
    """Over natural and hostile rows; others are neither right nor wrong."""
    meant = truth.is_natural | truth.is_hostile
    found, hostile = decision[meant], truth.is_hostile[meant]
    is_decided = found != ABSTAIN
    is_right = (found == REJECT) == hostile
    return Abstention(
        decided=rate(int(is_decided.sum()), len(found)),
        right=rate(int((is_right & is_decided).sum()), int(is_decided.sum())),
        as_reject=rate(int(((found != ACCEPT) == hostile).sum()), len(found)),
        as_accept=rate(int(is_right.sum()), len(found)),
    )


def naming(verdicts: SampleVerdicts, truth: Truth, families: dict[str, str]) -> Naming | None:
    """None where the detectors know no attack."""
    if not families:
        return None
    rows = [
        (guess, str(source))
        for guess, source in zip(verdicts.attacks, truth.sources, strict=True)
        if guess is not None and source in families and source != NATURAL
    ]
    named = [(guess, source) for guess, source in rows if guess.family is not None]
    attacks = [(guess, source) for guess, source in rows if guess.attack is not None]
    return Naming(
        families_named=rate(len(named), len(rows)),
        families_right=rate(sum(guess.family == families[source] for guess, source in named), len(named)),
        attacks_named=rate(len(attacks), len(rows)),
        attacks_right=rate(sum(guess.attack == source for guess, source in attacks), len(attacks)),
        reliability=tuple(_shares([(guess, source) for guess, source in named], families)),
    )


def _shares(named: Sequence[tuple[AttackGuess, str]], families: dict[str, str]) -> list[Share]:
    found = []
    for low, high in itertools.pairwise(BINS):
        within = [
            (g, s) for g, s in named if low <= g.family_probability < high or (high == 1.0 <= g.family_probability)
        ]
        mean = float(np.mean([g.family_probability for g, _ in within])) if within else None
        found.append(Share(low, high, mean, rate(sum(g.family == families[s] for g, s in within), len(within))))
    return found
