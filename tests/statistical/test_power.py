"""A difference worth an alarm is found: power above a floor, stated with the number of windows behind it.

With power 0.95 in truth, 100 windows show fewer than 0.87 of it once in 1,000 runs; the floors leave that room.
"""

from collections.abc import Callable

import numpy as np
import pytest
from tests.support.frames import class_frame, gaussian_frame

from hydrophone.detectors import Reference, fit_reference
from hydrophone.schemas.frame import Frame

pytestmark = [pytest.mark.statistical, pytest.mark.slow]

WINDOWS = 100


def rejections(reference: Reference, draw: Callable[[int], Frame]) -> float:
    return float(np.mean([reference.test(draw(1_000 + index)).rejected for index in range(WINDOWS)]))


@pytest.mark.parametrize(
    ("share", "shift", "floor"), [(0.1, 3.0, 0.9), (0.2, 1.5, 0.9), (1.0, 0.4, 0.9), (0.05, 3.0, 0.3)]
)
def test_a_shift_in_a_share_of_the_rows_is_found(share: float, shift: float, floor: float) -> None:
    reference = fit_reference([gaussian_frame(1_500, 0, dimensions={"fc": 16})], permutations=199, device="cpu")
    planted = round(share * 100)
    found = rejections(
        reference, lambda seed: gaussian_frame(100, seed, dimensions={"fc": 16}, shift=shift, shifted=planted)
    )
    assert found >= floor


def test_a_shift_of_one_class_is_found_while_the_class_mix_moves() -> None:
    reference = fit_reference([class_frame(1_500, 0, shares=(0.5, 0.5))], permutations=199, device="cpu")
    assert rejections(reference, lambda seed: class_frame(100, seed, shares=(0.8, 0.2), shift=0.8)) >= 0.9


def test_a_moving_class_mix_alone_is_not_found() -> None:
    """At most the level: of 100 windows at 0.05, more than 12 reject once in 500 runs."""
    reference = fit_reference([class_frame(1_500, 0, shares=(0.5, 0.5))], permutations=199, device="cpu")
    assert rejections(reference, lambda seed: class_frame(100, seed, shares=(0.9, 0.1))) <= 0.12


def test_one_shifted_layer_of_eight_is_found() -> None:
    dimensions = {f"l{i}": 8 for i in range(8)}
    reference = fit_reference([gaussian_frame(1_200, 0, dimensions=dimensions)], permutations=199, device="cpu")

    def draw(seed: int) -> Frame:
        frame = gaussian_frame(100, seed, dimensions=dimensions)
        frame.layers["l5"][:30] += 1.5
        return frame

    assert rejections(reference, draw) >= 0.9
    assert reference.test(draw(7)).branch is not None
