"""What is sent during a soak, planned from a seed: repeated, disordered, late, from wrong clocks, with silences.

Times are milliseconds from the start. How an entry travels, as a frame or as what a peer reads, is the sender's.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["LATENESS_MS", "WINDOW_MS", "Sent", "plan"]

WINDOW_MS: Final = 1_000
LATENESS_MS: Final = 1_500
FRAMES_PER_SECOND: Final = 4
ROWS: Final = 8
DISORDER_MS: Final = 600
"""Well within the lateness: none of these rows may be lost."""

FAR_LATE_MS: Final = 8_000
HOUR_MS: Final = 3_600_000
REPEATED, LATE, SKEWED = 0.05, 0.02, 0.01
"""Shares of frames."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One frame of a model: its name, which decides its id and values, its rows' event times, and when it is sent."""

    due_ms: int
    model: str
    name: str
    times_ms: tuple[int, ...]
    is_late: bool = False


def plan(seed: int, seconds: int, models: Sequence[str], *, with_skew: bool = True) -> list[Sent]:
    """In the order of sending. The same seed gives the same traffic."""
    chance = random.Random(seed)
    everyone = _silences(chance, seconds, count=1 if seconds >= 60 else 0)
    entries = [
        entry
        for model in models
        for entry in _of_model(chance, model, seconds, everyone + _silences(chance, seconds, seconds // 40), with_skew)
    ]
    repeated = [replace(entry, due_ms=entry.due_ms + chance.randrange(3_000)) for entry in _some(chance, entries)]
    return sorted(entries + repeated, key=lambda entry: entry.due_ms)


def _some(chance: random.Random, entries: list[Sent]) -> Iterator[Sent]:
    return (entry for entry in entries if chance.random() < REPEATED)


def _silences(chance: random.Random, seconds: int, count: int) -> list[range]:
    begins = (chance.randrange(seconds * 1_000) for _ in range(count))
    return [range(begin, begin + chance.randint(4_000, 8_000)) for begin in begins]


def _of_model(
    chance: random.Random, model: str, seconds: int, silences: list[range], with_skew: bool
) -> Iterator[Sent]:
    step = 1_000 // FRAMES_PER_SECOND
    for part in range(seconds * FRAMES_PER_SECOND):
        begin = part * step
        if any(begin in silence for silence in silences):
            continue
        times = tuple(begin + chance.randrange(step) for _ in range(ROWS))
        due = begin + step + chance.randrange(DISORDER_MS)
        draw = chance.random()
        is_late = draw < LATE and begin > FAR_LATE_MS
        skew = chance.choice((-HOUR_MS, HOUR_MS)) if with_skew and LATE < draw < LATE + SKEWED else 0
        moved = tuple(time + skew - FAR_LATE_MS * is_late for time in times)
        yield Sent(due, model, f"{model}/{part}", moved, is_late)
