"""Labelled rows: which there are, which share a source, and what makes them absurd. Nothing is fitted here.

A row's source is the input it was made from. Rows of one source say nearly the same, so they are held out together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.frame import Frame

__all__ = ["ADVERSARIAL", "Labelled", "check_natural", "family_of", "labelled_rows"]

ADVERSARIAL: Final = 1
UNNAMED: Final = "unnamed"
LEAST_ATTACK_ROWS: Final = 20
"""Rows an attack needs to be learnt as one."""

MOST_OF_ONE_CLASS: Final = 0.9
"""Share of natural rows that may be predicted as one class, where there are more."""

CHANCE: Final = 1.5
"""Mean confidence on natural rows, in units of 1 / C, below which a model does not know its inputs."""

KIN: Final[Mapping[str, str]] = {
    "fgsm": "one-step",
    "fgm": "one-step",
    "fast": "one-step",
    "bim": "iterated",
    "pgd": "iterated",
    "lpgd": "iterated",
    "linfpgd": "iterated",
    "apgd": "iterated",
    "autopgd": "iterated",
    "mim": "iterated",
    "mifgsm": "iterated",
    "deepfool": "minimal",
    "ldeepfool": "minimal",
    "cw": "minimal",
    "carlini": "minimal",
    "ead": "minimal",
    "boundary": "query",
    "hopskipjump": "query",
    "square": "query",
    "zoo": "query",
}


def family_of(attack: str, families: Mapping[str, str] | None = None) -> str:
    """Attacks of one family follow the same idea; the name decides, without its strength. An attack of no known
    family is one of its own."""
    if families is not None and attack in families:
        return families[attack]
    letters = "".join(letter for letter in attack.lower() if letter.isalpha())
    l2 = "iterated-l2" if letters == "lpgd" else None
    return l2 or KIN.get(letters, letters or attack)


@dataclass(frozen=True)
class Labelled:
    """`attacks` name each row; None: natural or noisy. `sources` number the groups that are held out together."""

    frame: Frame
    attacks: NDArray[Any]
    sources: NDArray[np.int64]

    @property
    def is_hostile(self) -> NDArray[np.bool_]:
        return np.array([name is not None for name in self.attacks])

    def take(self, rows: NDArray[np.bool_]) -> "Labelled":
        return Labelled(self.frame.take(rows), self.attacks[rows], self.sources[rows])

    def held_out(self, share: float, seed: int) -> NDArray[np.bool_]:
        """Rows of a share of the sources, drawn by `seed`."""
        known = np.unique(self.sources)
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, len(known)]))).permutation(known)
        return np.isin(self.sources, order[: round(len(known) * share)])


def labelled_rows(frame: Frame) -> Labelled:
    """Raises `ReferenceInvalid` when labels are missing or attacks are too few to learn from."""
    if frame.label is None:
        raise ReferenceInvalid(
            "labelled frames carry `label` (0 natural, 1 adversarial, 2 noisy) in every row; some lack it"
        )
    named: Sequence[str | None] = frame.attack if frame.attack is not None else [None] * len(frame)
    hostile = frame.label == ADVERSARIAL
    attacks = np.array(
        [(name or UNNAMED) if is_hostile else None for name, is_hostile in zip(named, hostile, strict=True)], object
    )
    counts = {name: int((attacks == name).sum()) for name in sorted({*attacks[hostile].tolist()})}
    few = {name: count for name, count in counts.items() if count < LEAST_ATTACK_ROWS}
    if not counts or few:
        raise ReferenceInvalid(
            f"each attack needs at least {LEAST_ATTACK_ROWS} rows labelled {ADVERSARIAL}; got {few or 'no attack'}: "
            "make more of it or leave it out"
        )
    return Labelled(frame, attacks, _sources(frame))


def _sources(frame: Frame) -> NDArray[np.int64]:
    """By sample id where there are any: an attack keeps the id of the input it was made from. Else each row alone."""
    if frame.sample_ids is None:
        return np.arange(len(frame), dtype=np.int64)
    ids = [name or f"\0{row}" for row, name in enumerate(frame.sample_ids)]
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def check_natural(frame: Frame, accuracy: float | None) -> None:
    """Refuse natural rows on which the model plainly does not work: verdicts fitted on them would mean nothing.

    Frames hold no true class, so this knows what can be seen without: one answer for nearly all, or no confidence in
    any. `accuracy`, where the caller measured it, is held against chance.
    """
    predicted = frame.classes()
    if predicted is None:
        return
    counts = np.unique(predicted, return_counts=True)[1]
    C = frame.output.shape[1] if frame.output is not None else int(predicted.max()) + 1
    if C < 2:
        return
    most = float(counts.max() / len(predicted))
    confidence = None if frame.output is None else float(frame.output.max(1).mean())
    least_confidence, least_accuracy = min(CHANCE / C, 0.6), min(2 / C, 0.6)
    rules = {
        f"at most {MOST_OF_ONE_CLASS:.0%} of natural rows may be predicted as one of {C} classes; got {most:.1%}": (
            C == 2 or most <= MOST_OF_ONE_CLASS
        ),
        f"mean confidence on natural rows must be at least {least_confidence:.3f}; got {confidence}": (
            confidence is None or confidence >= least_confidence
        ),
        f"`accuracy` on clean inputs must be at least {least_accuracy:.2f}; got {accuracy}": (
            accuracy is None or accuracy >= least_accuracy
        ),
    }
    broken = [message for message, holds in rules.items() if not holds]
    if broken:
        raise ReferenceInvalid(
            f"{'; '.join(broken)}: the model does not work on these inputs, so nothing can be learnt from them. "
            "Check the pre-processing first"
        )
