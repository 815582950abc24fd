"""Repeats again, pair by pair in float64 from the definition; and traffic that repeats itself in known ways."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NATURAL", "Numbers", "slow_leaders"]

Array = NDArray[np.float64]
Numbers = Callable[[int, np.random.Generator], NDArray[np.int64]]
"""So many rows in the order they came, each by the number of its input."""


def slow_leaders(
    layers: Mapping[str, Array],
    reach: Mapping[str, float],
    answers: Sequence[object] | None = None,
    output: Array | None = None,
    tolerance: float = 0.0,
) -> list[int]:
    """The first leader that a row is near to in every layer with the same answer, or the row itself; `layers` are
    scaled, `reach` is the squared distance below which two rows are near."""
    leaders: list[int] = []
    for i in range(len(next(iter(layers.values())))):

        def repeats(j: int, i: int = i) -> bool:
            near = all(float(((rows[i] - rows[j]) ** 2).sum()) < reach[name] for name, rows in layers.items())
            agree = answers is None or answers[i] == answers[j]
            close = output is None or float(np.abs(output[i] - output[j]).max()) <= tolerance
            return near and agree and close

        leaders.append(next((j for j in range(i) if leaders[j] == j and repeats(j)), i))
    return leaders


def _fresh(rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(1_000_000, 2**62, rows)


def _blank(rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """One input in ten is the same blank one."""
    numbers = _fresh(rows, rng)
    numbers[rng.random(rows) < 0.1] = 0
    return numbers


def _popular(rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A third of the traffic asks for one of 500 inputs, some far more often than others."""
    numbers, weights = _fresh(rows, rng), 1 / np.arange(1, 501)
    hits = rng.random(rows) < 1 / 3
    numbers[hits] = rng.choice(500, int(hits.sum()), p=weights / weights.sum())
    return numbers


def _retried(rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """One request in fifty fails and is sent again at once, three times in the mean."""
    times = np.where(rng.random(rows) < 0.02, 1 + rng.geometric(1 / 3, rows), 1)
    return np.repeat(_fresh(rows, rng), times)[:rows]


NATURAL: Final[Mapping[str, Numbers]] = {
    "no repeats": _fresh,
    "a blank input": _blank,
    "popular inputs": _popular,
    "retries": _retried,
}
