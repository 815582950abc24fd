"""The long table: how often each of three methods flags a window, by attack, share of hostile rows and window size.

`published` is the mean detection rate of `published.py`; `plain` is one kernel test of one late layer without classes;
`ours` is the whole window test, and its own p-value for each layer beside it. All three see the same windows.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.fashion_pools import Pools
from benchmarks.harness import wilson
from benchmarks.published import Published
from benchmarks.windows import contaminated

from hydrophone.detectors import Reference, mmd_permutation_test
from hydrophone.schemas.frame import Frame

__all__ = ["PLAIN_LAYER", "SHARES", "SIZES", "Cell", "Methods", "measure_cell", "merged", "plain_p_value", "write"]

SHARES: Final = (0.01, 0.02, 0.05, 0.10, 0.20, 0.50)
SIZES: Final = (100, 250, 500)
ALPHA: Final = 0.05
PLAIN_LAYER: Final = "fc2"
PLAIN_ROWS: Final = 1_000
PLAIN_PERMUTATIONS: Final = 199
ALL_LAYERS: Final = "all"


@dataclass(frozen=True, slots=True)
class Cell:
    """`rate` of `windows` windows; `low` and `high` bound it at 95 % (Wilson), windows taken as independent."""

    attack: str
    share: float
    size: int
    method: str
    layer: str
    rate: float
    windows: int

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(round(self.rate * self.windows), self.windows)


@dataclass(frozen=True)
class Methods:
    """One model's three methods; `published` is None where it is left out for time."""

    ours: Reference
    plain: Frame
    published: Published | None


def plain_p_value(reference: Frame, window: Frame) -> float:
    """The kernel two-sample test as anyone would run it: one layer, pooled median, permutations that ignore classes."""
    result = mmd_permutation_test(
        reference.layers[PLAIN_LAYER], window.layers[PLAIN_LAYER], permutations=PLAIN_PERMUTATIONS, device="cpu"
    )
    assert result.p_value is not None, "a window of the table is large enough to be tested"
    return result.p_value


def plain_reference(pool: Frame) -> Frame:
    return pool.take(np.arange(min(PLAIN_ROWS, len(pool))))


def measure_cell(
    methods: Methods, pools: Pools, hostile: Frame, share: float, size: int, *, windows: int, seed: Sequence[int]
) -> dict[tuple[str, str], float]:
    """Share of windows flagged per method and layer."""
    flagged: dict[tuple[str, str], list[float]] = {}
    for index in range(windows):
        window = contaminated(pools, hostile, size, share, np.random.default_rng([*seed, index]))
        for key, value in _flags(methods, window).items():
            flagged.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in flagged.items()}


def _flags(methods: Methods, window: Frame) -> dict[tuple[str, str], float]:
    result = methods.ours.test(window)
    flags = {("ours", ALL_LAYERS): float(result.rejected)}
    flags |= {("ours", name): float(layer.p_value <= ALPHA) for name, layer in result.layers.items()}
    flags["plain", PLAIN_LAYER] = float(plain_p_value(methods.plain, window) <= ALPHA)
    if methods.published is not None:
        flags |= {("published", name): rate for name, rate in methods.published.detection_rates(window).items()}
    return flags


def merged(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Cells of several models joined, each window counted once."""
    groups: dict[tuple[str, float, int, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.attack, cell.share, cell.size, cell.method, cell.layer), []).append(cell)
    for key, group in groups.items():
        windows = sum(cell.windows for cell in group)
        yield Cell(*key, sum(cell.rate * cell.windows for cell in group) / windows, windows)


def write(folder: Path, cells: Sequence[Cell], heading: Mapping[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(cell) | dict(zip(("low", "high"), cell.interval, strict=True)) for cell in cells]
    (folder / "detection-table.json").write_text(json.dumps({**heading, "cells": rows}, indent=1) + "\n")
    (folder / "detection-table.md").write_text("\n".join(_markdown(cells)) + "\n")


def _markdown(cells: Sequence[Cell]) -> Iterator[str]:
    """One table a window size: per attack and method the best single layer (or all), in per cent."""
    yield "Windows flagged at a nominal 5 %, in per cent, by share of hostile rows."
    for size in SIZES:
        shares = sorted({cell.share for cell in cells if cell.size == size})
        yield from ("", f"## Windows of {size}", "")
        yield "| attack | method | layer | " + " | ".join(f"{share:.0%}" for share in shares) + " |"
        yield "| --- | --- | --- | " + " | ".join("---:" for _ in shares) + " |"
        for (attack, method, layer), rates in _lines(cells, size).items():
            yield f"| {attack} | {method} | {layer} | " + " | ".join(f"{100 * rates[s]:.0f}" for s in shares) + " |"


def _lines(cells: Sequence[Cell], size: int) -> dict[tuple[str, str, str], dict[float, float]]:
    lines: dict[tuple[str, str, str], dict[float, float]] = {}
    for cell in cells:
        if cell.size == size:
            lines.setdefault((cell.attack, cell.method, cell.layer), {})[cell.share] = cell.rate
    return dict(sorted(lines.items()))
