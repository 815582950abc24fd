"""Where a window's statistic ranks among those of clean windows. How the statistic comes about lives elsewhere.

Permutations take rows for independent and the reference for a fresh draw. Frames of a video are not the one, and the
reference a user has is not the other. A rank among clean windows of the same traffic, against the same reference, needs
neither: only that clean windows are exchangeable with each other (Vovk, Gammerman & Shafer, "Algorithmic Learning in a
Random World", 2005, chapter 2). Given the K windows the level is Beta-distributed around alpha: deviation .015 at
alpha .05 and K = 199, .007 at K = 999.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.detectors.permutation import TIE_TOLERANCE
from hydrophone.detectors.repeats import exact_leaders
from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.frame import Frame

__all__ = ["MAX_WINDOW_ROWS", "MIN_WINDOWS", "WindowNull", "clean_windows", "shared_rows"]

MIN_WINDOWS: Final = 199
"""Fewer could not express a p-value of .005."""

MAX_WINDOW_ROWS: Final = 512
"""Rows of a calibration window unless told otherwise: as many as a processor samples."""


@dataclass(frozen=True, eq=False)
class WindowNull:
    """Joint statistics `[K]` of clean windows of `rows` rows each."""

    rows: int
    statistics: NDArray[np.float64]

    def __post_init__(self) -> None:
        if len(self.statistics) < MIN_WINDOWS:
            raise ReferenceInvalid(
                f"a window is ranked among at least {MIN_WINDOWS} clean ones; got {len(self.statistics)} of "
                f"{self.rows} rows: give more clean traffic, or fewer rows a window"
            )
        if not np.isfinite(self.statistics).all():
            raise ReferenceInvalid("the statistics of clean windows must be finite numbers")

    def p_value(self, statistic: float) -> float:
        """(1 + #{clean >= observed}) / (K + 1), never 0; ties count as greater."""
        slack = TIE_TOLERANCE * max(1.0, abs(statistic))
        return (1 + int((self.statistics >= statistic - slack).sum())) / (len(self.statistics) + 1)

    def e_value(self, statistic: float) -> float:
        """(K + 1) exp(M) / (exp(M) + Σ exp(M_k)): an e-value for exchangeable windows (Koning, arXiv 2310.01153)."""
        together = np.append(self.statistics, statistic)
        weights = np.exp(together - together.max())
        return float(len(together) * weights[-1] / weights.sum())


def clean_windows(traffic: Frame, *, rows: int | None = None, window_ms: int | None = None) -> tuple[int, list[Frame]]:
    """Disjoint windows of clean traffic in time order, and how many rows each will be ranked with.

    With `window_ms` they are tumbling windows of event time, as a processor makes them; those with too few rows are
    left out. Without it, runs of `rows` successive rows. `rows` defaults to the most that leaves `MIN_WINDOWS` windows,
    at most `MAX_WINDOW_ROWS`.
    """
    order = np.argsort(traffic.event_time_ms, kind="stable")
    parts = list(_runs(traffic, order, rows) if window_ms is None else _tumbling(traffic, order, window_ms))
    if rows is None:
        sizes = sorted((len(part) for part in parts), reverse=True)
        rows = min(MAX_WINDOW_ROWS, sizes[min(MIN_WINDOWS, len(sizes)) - 1])
    return rows, [traffic.take(part) for part in parts if len(part) >= rows]


def shared_rows(traffic: Frame, kept: Mapping[str, NDArray[Any]]) -> int:
    """How many rows of the traffic equal a row of `kept` (`[n, D]` a layer) in every layer, byte for byte."""
    n = len(next(iter(kept.values())))
    tables = [np.concatenate([rows, traffic.layers[name].astype(rows.dtype)]) for name, rows in sorted(kept.items())]
    return int((exact_leaders(tables)[n:] < n).sum())


def _runs(traffic: Frame, order: NDArray[np.intp], rows: int | None) -> Iterator[NDArray[np.intp]]:
    size = rows or max(1, min(MAX_WINDOW_ROWS, len(traffic) // MIN_WINDOWS))
    for start in range(0, len(order) - size + 1, size):
        yield order[start : start + size]


def _tumbling(traffic: Frame, order: NDArray[np.intp], window_ms: int) -> Iterator[NDArray[np.intp]]:
    starts = traffic.event_time_ms[order] // window_ms
    yield from np.split(order, np.flatnonzero(np.diff(starts)) + 1)
