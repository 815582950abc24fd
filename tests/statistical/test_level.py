"""Under the null the test rejects as often as it says.

Each window has a fresh reference, so that windows are independent and the share of rejections is binomial: it must lie
in the 99 % band, (0.025, 0.080) for 400 windows at level 0.05, (0.013, 0.100) for 150. p-values must pass a
Kolmogorov-Smirnov test of uniformity at level 0.001. All is seeded: these tests pass or fail, they do not flicker.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.frames import plain_frame
from tests.support.windows import ALPHA, band, mixed, null_p_values, uniformity

from hydrophone.detectors import fit_reference
from hydrophone.schemas.frame import Frame

pytestmark = [pytest.mark.statistical, pytest.mark.slow]

WINDOWS = 400


def assert_exact(p_values: NDArray[np.float64]) -> None:
    low, high = band(len(p_values))
    assert low <= np.mean(p_values <= ALPHA) <= high
    assert uniformity(p_values) > 0.001


def gaussian(rows: int, rng: np.random.Generator, name: str) -> Frame:
    return plain_frame({"fc": rng.standard_normal((rows, 4)).astype(np.float32)}, name)


def eight_layers(rows: int, rng: np.random.Generator, name: str) -> Frame:
    """Layers that share most of their variation, as those of a network do."""
    common = rng.standard_normal((rows, 4))
    layers = {f"l{i}": (common + 0.5 * rng.standard_normal((rows, 4))).astype(np.float32) for i in range(8)}
    return plain_frame(layers, name)


def heavy_tailed(rows: int, rng: np.random.Generator, name: str) -> Frame:
    """Student's t with 1.5 degrees of freedom: no variance, so any scale taken from a sample is that sample's own."""
    return plain_frame({"fc": rng.standard_t(1.5, (rows, 512)).astype(np.float32)}, name)


def test_the_level_of_plain_permutations() -> None:
    assert_exact(null_p_values(gaussian, train=90, window=30, windows=WINDOWS, seed=1))


def test_the_level_within_strata() -> None:
    draw = mixed([0.45, 0.3, 0.2, 0.05])
    assert_exact(null_p_values(draw, train=150, window=40, windows=WINDOWS, seed=2))


def test_the_level_of_eight_layers_together() -> None:
    assert_exact(null_p_values(eight_layers, train=90, window=30, windows=WINDOWS, seed=3))


def test_the_level_with_heavy_tails_in_512_dimensions() -> None:
    """Scaling by the permuted rows' own statistics would reject 27 to 100 % here."""
    assert_exact(null_p_values(heavy_tailed, train=300, window=100, windows=150, seed=4))


def test_the_level_where_many_classes_are_near_the_size_of_a_stratum() -> None:
    """Strata chosen by the permuted rows' own class counts would reject 1.3 % here, a quarter of what they should."""
    draw = mixed([0.08] * 10 + [0.1] * 2, deviation=0.3)
    assert_exact(null_p_values(draw, train=375, window=200, windows=WINDOWS // 2, seed=5))


def test_p_values_of_layers_are_uniform_too() -> None:
    """Adjusted p-values only ever grow: a layer's own is uniform, the adjusted one rejects at most as often."""
    own, adjusted = [], []
    for index in range(200):
        rng = np.random.default_rng([6, index])
        reference = fit_reference([eight_layers(90, rng, f"t{index}")], permutations=199, seed=index, device="cpu")
        layers = reference.test(eight_layers(30, rng, f"w{index}")).layers
        own.append(layers["l3"].p_value)
        adjusted.append(min(layer.p_adjusted for layer in layers.values()))
    assert uniformity(np.array(own)) > 0.001
    assert np.mean(np.array(adjusted) <= ALPHA) <= band(200)[1]
