"""How often clean windows are rejected: over fresh references, and for the one reference that a user has.

Both sides are drawn from the images the first model was trained on, of which there are 50,000: its activations for them
differ from those for new images, but reference and windows are of one law, which is all a level asks for.
"""

import statistics
from collections.abc import Iterator
from typing import Final

import numpy as np
from benchmarks.detection_effort import Effort, rate_detail, seeded
from benchmarks.harness import Measured
from numpy.typing import NDArray

from hydrophone.detectors import fit_reference
from hydrophone.schemas.frame import Frame

__all__ = ["level_rows", "one_reference_rows"]

ALPHA: Final = 0.05
LEVEL_REFERENCE: Final = 600
LEVEL_WINDOW: Final = 100
SMALL_RATE: Final = 0.075
FIT_SHARE: Final = 1 / 3


def level_rows(pool: Frame, effort: Effort) -> Iterator[Measured]:
    """Every window meets a reference of its own, drawn with it from the training images."""
    p_values = np.array([_fresh_p_value(pool, index) for index in range(effort.level_windows)])
    what = f"n={LEVEL_REFERENCE}, m={LEVEL_WINDOW}, fresh rows of the {len(pool):,} training images for each"
    for name, level in (("level-05-fused", 0.05), ("level-01-fused", 0.01)):
        flags = (p_values <= level).tolist()
        yield Measured(name, statistics.fmean(flags), f"{rate_detail(flags)}; {what}")


def _fresh_p_value(pool: Frame, index: int) -> float:
    fitted = round(LEVEL_REFERENCE / (1 - FIT_SHARE))
    rows = seeded(1, index).choice(len(pool), fitted + LEVEL_WINDOW, replace=False)
    reference = fit_reference(
        [pool.take(rows[:fitted])], permutations=199, fit_share=FIT_SHARE, seed=index, device="cpu"
    )
    p_value = reference.test(pool.take(rows[fitted:])).p_value
    assert p_value is not None, "a window of 100 rows is large enough to be tested"
    return p_value


def one_reference_rows(pool: Frame, effort: Effort) -> Iterator[Measured]:
    """The rate that a user sees who has one reference, over several such users."""
    rates = {setting: _rates_per_reference(pool, *setting, effort) for setting in effort.conforming}
    detail = "; ".join(_spread_detail(setting, values, effort) for setting, values in rates.items())
    worst = max((float(values.mean()) for values in rates.values()), key=lambda mean: abs(mean - ALPHA))
    spread = max(_between(values, effort.reference_windows) for values in rates.values())
    yield Measured("level-one-reference-mean", worst, f"the farther from 5 % of: {detail}")
    yield Measured("level-one-reference-sd", spread, f"the larger of: {detail}")
    small = _rates_per_reference(pool, *effort.small, effort)
    share = float((small <= SMALL_RATE).mean())
    yield Measured(
        "level-small-reference", share, f"counting noise left in; {_spread_detail(effort.small, small, effort)}"
    )


def _rates_per_reference(pool: Frame, n: int, m: int, effort: Effort) -> NDArray[np.float64]:
    fitted = round(n / (1 - FIT_SHARE))
    rates = []
    for index in range(effort.references):
        order = seeded(2, n, m, index).permutation(len(pool))
        reference = fit_reference(
            [pool.take(order[:fitted])],
            permutations=effort.permutations,
            fit_share=FIT_SHARE,
            seed=index,
            device="cpu",
            max_reference_rows=n,
        )
        rest = order[fitted:]
        windows = (seeded(3, index, w).choice(rest, m, replace=False) for w in range(effort.reference_windows))
        rates.append(statistics.fmean(reference.test(pool.take(rows)).rejected for rows in windows))
    return np.array(rates)


def _between(rates: NDArray[np.float64], windows: int) -> float:
    """Deviation between references: the variance of their rates less what counting alone would give."""
    counting = float((rates * (1 - rates)).mean()) / max(windows - 1, 1)
    return float(np.sqrt(max(rates.var(ddof=1) - counting, 0.0)))


def _spread_detail(setting: tuple[int, int], rates: NDArray[np.float64], effort: Effort) -> str:
    (n, m), windows = setting, effort.reference_windows
    spread = f"{_between(rates, windows):.1%} between references, {rates.min():.1%} to {rates.max():.1%}"
    return f"n={n} m={m} mean {rates.mean():.1%}, {spread} ({len(rates)} references, {windows} windows each)"
