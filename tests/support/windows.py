"""Many windows, each with what a statistical test needs to know of it. Nothing here asserts anything."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tests.support.frames import plain_frame

from hydrophone.detectors import Reference, fit_reference
from hydrophone.schemas.frame import Frame

__all__ = ["ALPHA", "PERMUTATIONS", "Draw", "band", "mixed", "null_p_values", "uniformity"]

ALPHA: Final = 0.05
PERMUTATIONS: Final = 199

Draw = Callable[[int, np.random.Generator, str], Frame]
"""Rows wanted, generator, and a name for the frame's id."""


def mixed(shares: list[float], *, separation: float = 4.0, deviation: float = 1.0) -> Draw:
    """Classes by share, each with a centre of its own in four dimensions."""
    centres = separation * np.random.default_rng(0).standard_normal((len(shares), 4))

    def draw(rows: int, rng: np.random.Generator, name: str) -> Frame:
        predicted = rng.choice(len(shares), size=rows, p=shares)
        values = centres[predicted] + deviation * rng.standard_normal((rows, 4))
        return plain_frame({"fc": values.astype(np.float32)}, name, predicted=predicted)

    return draw


def null_p_values(draw: Draw, *, train: int, window: int, windows: int, seed: int) -> NDArray[np.float64]:
    """One p-value a window, each against a fresh reference of the same law: then they are independent."""
    found = []
    for index in range(windows):
        rng = np.random.default_rng([seed, index])
        reference: Reference = fit_reference(
            [draw(train, rng, f"train {index}")], permutations=PERMUTATIONS, seed=index, device="cpu"
        )
        found.append(reference.test(draw(window, rng, f"window {index}")).p_value)
    return np.array(found, np.float64)


def band(windows: int, level: float = ALPHA, confidence: float = 0.99) -> tuple[float, float]:
    """Where the share of rejecting windows lies with this confidence if the level is what it should be."""
    low, high = stats.binom.interval(confidence, windows, level)
    return low / windows, high / windows


def uniformity(p_values: NDArray[np.float64], seed: int = 0) -> float:
    """Kolmogorov-Smirnov against the uniform law, each p-value spread evenly over its step of 1 / (B + 1)."""
    spread = np.random.default_rng(seed).random(len(p_values)) / (PERMUTATIONS + 1)
    return float(stats.kstest(p_values - spread, "uniform").pvalue)
