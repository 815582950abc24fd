"""Windows drawn from pools of activations: clean, contaminated, of a changed class mix. Nothing is tested here."""

from typing import Any

import numpy as np
from benchmarks.fashion_pools import Pools
from numpy.typing import NDArray

from hydrophone.schemas.frame import Frame, concat

__all__ = ["class_mix", "clean", "contaminated"]


def clean(pool: Frame, size: int, generator: np.random.Generator) -> Frame:
    return pool.take(generator.choice(len(pool), size, replace=False))


def contaminated(pools: Pools, hostile: Frame, size: int, share: float, generator: np.random.Generator) -> Frame:
    """Clean traffic with `share` of its rows from `hostile`: made of other images, so no original is in the window."""
    rows = round(size * share)
    parts = [clean(pools.clean, size - rows, generator)] if rows < size else []
    parts += [clean(hostile, rows, generator)] if rows else []
    return concat(parts)


def class_mix(
    pool: Frame, classes: NDArray[np.integer[Any]], common: int, share: float, size: int, generator: np.random.Generator
) -> Frame:
    """A window in which the class `common` has this share; the other classes keep their mix."""
    rows = round(size * share)
    inside, outside = np.flatnonzero(classes == common), np.flatnonzero(classes != common)
    chosen = [generator.choice(inside, rows, replace=False), generator.choice(outside, size - rows, replace=False)]
    return pool.take(np.concatenate(chosen))
