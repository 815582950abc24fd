"""Rows that change sides in bins: the level is exact where rows are exchangeable, power is that of single rows, and
blocks of rows in time order keep the level low where neighbours depend on each other.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.frames import plain_frame
from tests.support.windows import ALPHA, band, mixed, null_p_values, uniformity

from hydrophone.detectors import Reference, bins, fit_reference
from hydrophone.schemas.frame import Frame

pytestmark = [pytest.mark.statistical, pytest.mark.slow]


def test_the_level_within_strata_in_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows over and reference bins beyond the affordable, which change sides in no split, are part of it."""
    monkeypatch.setattr(bins, "SINGLE_ROWS", 50)
    monkeypatch.setattr(bins, "MOST_BINS", 30)
    monkeypatch.setattr(bins, "ENOUGH_BINS", 12)
    monkeypatch.setattr(bins, "MOST_LEFT", 0.3)
    p_values = null_p_values(mixed([0.45, 0.3, 0.25]), train=300, window=64, windows=250, seed=12)
    low, high = band(len(p_values))
    assert low <= np.mean(p_values <= ALPHA) <= high
    assert uniformity(p_values) > 0.001


def ar1(rows: int, rho: float, rng: np.random.Generator, name: str) -> Frame:
    """Each row is in part the one before it; a millisecond apart, and shuffled in the frame."""
    values = rng.standard_normal((rows, 8))
    for t in range(1, rows):
        values[t] = rho * values[t - 1] + np.sqrt(1 - rho**2) * values[t]
    times = rng.permutation(rows)
    return plain_frame({"fc": values[times].astype(np.float32)}, name, event_time_ms=times)


def rejections(rho: float, references: int, windows: int) -> tuple[float, float]:
    """Share of windows of 100 rows rejected by blocks and by single rows, of the same windows and traffic."""
    found: list[tuple[bool, bool]] = []
    for index in range(references):
        rng = np.random.default_rng([21, index])
        train = ar1(1_500, rho, rng, f"train {index}")
        blocks = fit_reference([train], permutations=199, seed=index, device="cpu", calibration="blocks")
        single = fit_reference([train], permutations=199, seed=index, device="cpu")
        for at in range(windows):
            window = ar1(100, rho, rng, f"window {index} {at}")
            found.append((blocks.test(window).rejected, single.test(window).rejected))
    shares: NDArray[np.float64] = np.array(found, np.float64).mean(0)
    return float(shares[0]), float(shares[1])


@pytest.mark.parametrize(("rho", "blocks_at_most", "single_at_least"), [(0.3, 0.14, 0.17), (0.6, 0.16, 0.8)])
def test_blocks_keep_the_level_low_where_rows_depend_on_their_neighbours(
    rho: float, blocks_at_most: float, single_at_least: float
) -> None:
    blocks, single = rejections(rho, references=12, windows=10)
    assert blocks <= blocks_at_most
    assert single >= single_at_least


def test_bins_of_a_large_reference_find_what_single_rows_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paired: the same windows against the same reference."""
    draw, rng = mixed([0.25] * 4), np.random.default_rng(31)
    artefact = fit_reference([draw(4_500, rng, "train")], permutations=199, device="cpu", max_reference_rows=3_000)
    windows: list[Frame] = []
    for at in range(60):
        clean = draw(160, rng, f"window {at}")
        windows.append(plain_frame({"fc": clean.layers["fc"] + np.float32(0.2)}, f"w{at}", predicted=clean.predicted))
    in_bins = [artefact.test(window) for window in windows]
    assert {result.bin_rows for result in in_bins} <= {2, 4}
    monkeypatch.setattr(bins, "SINGLE_ROWS", 3_000)
    single = Reference(artefact._artefact, device="cpu")
    found = np.array([single.test(window).rejected for window in windows])
    assert found.mean() > 0.3
    assert np.mean([result.rejected for result in in_bins]) >= found.mean() - 0.1
