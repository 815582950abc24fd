"""How hard the detection benchmark works: models, windows and permutations, and how a rate of windows is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from benchmarks.fashion_pools import FULL, QUICK, Profile
from benchmarks.harness import wilson

__all__ = ["BRIEF", "BRISK", "THOROUGH", "Effort", "percents", "rate_detail", "seeded"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How many windows are drawn; each count is per model where a row has several."""

    profile: Profile
    models: int
    permutations: int
    reference_rows: int
    power_windows: int
    table_windows: int
    published_redraws: int
    level_windows: int
    references: int
    reference_windows: int
    conforming: tuple[tuple[int, int], ...]
    """Reference and window rows, n >= 16 m, of the rows on one reference."""
    small: tuple[int, int]
    """The same with n < 16 m."""
    shift_windows: int


THOROUGH: Final = Effort(
    FULL,
    models=3,
    permutations=999,
    reference_rows=8_000,
    power_windows=60,
    table_windows=5,
    published_redraws=100,
    level_windows=2_000,
    references=40,
    reference_windows=400,
    conforming=((2_000, 100), (8_000, 500)),
    small=(2_000, 500),
    shift_windows=200,
)
BRISK: Final = Effort(
    FULL,
    models=1,
    permutations=999,
    reference_rows=8_000,
    power_windows=20,
    table_windows=0,
    published_redraws=100,
    level_windows=300,
    references=6,
    reference_windows=40,
    conforming=((2_000, 100), (8_000, 500)),
    small=(2_000, 500),
    shift_windows=50,
)
"""One model and few windows: under an hour once the model is trained and attacked. Leaves the long table out."""

BRIEF: Final = Effort(
    QUICK,
    models=1,
    permutations=99,
    reference_rows=300,
    power_windows=2,
    table_windows=1,
    published_redraws=10,
    level_windows=4,
    references=2,
    reference_windows=4,
    conforming=((320, 20),),
    small=(200, 40),
    shift_windows=2,
)


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def rate_detail(flags: Sequence[bool]) -> str:
    low, high = wilson(sum(flags), len(flags))
    return f"{sum(flags)} of {len(flags)} windows, 95 % interval {low:.1%} to {high:.1%}"


def percents(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:.0%}" for rate in rates)
