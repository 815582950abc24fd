"""Evidence over time on images: how long clean traffic runs before it rings, how soon an attack does.

Windows are tested once, and runs are drawn from their p-values: the images do not suffice for as many fresh windows.
"""

import statistics
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from benchmarks.detection_effort import Effort, seeded
from benchmarks.fashion_pools import Pools
from benchmarks.harness import Measured
from benchmarks.windows import contaminated
from numpy.typing import NDArray

from hydrophone.detectors import Reference
from hydrophone.detectors.finite_reference import shared_variance
from hydrophone.detectors.sequential import NO_EVIDENCE, accumulate, evidence_over_time
from hydrophone.schemas.frame import Frame

__all__ = ["sequential_rows"]

ATTACKS: Final = ("FGSM.12", "PGD.12", "DeepFool", "PGD.03")
ROWS: Final = 500
SHARE: Final = 0.10
RUN_LENGTH: Final = 200
"""Asked for: the threshold."""

RUNS: Final = 400
LONGEST: Final = 2_000


def sequential_rows(models: Sequence[Pools], references: Sequence[Reference], effort: Effort) -> Iterator[Measured]:
    windows = effort.power_windows
    clean: list[float] = []
    delays: dict[str, list[float]] = {}
    for pools, reference in zip(models, references, strict=True):
        shared = shared_variance("stratified", tested=ROWS, reference_rows=reference.manifest.sizes.reference)
        found = _p_values(reference, [_window(pools, pools.clean, 0.0, index) for index in range(2 * windows)])
        clean += [_run(found, shared, seeded(9, pools.seed, run)) for run in range(RUNS)]
        for name in (attack for attack in ATTACKS if attack in pools.attacks):
            hostile = [_window(pools, pools.attacks[name], SHARE, index) for index in range(max(windows // 3, 2))]
            found = _p_values(reference, hostile)
            delays.setdefault(name, []).extend(_run(found, shared, seeded(10, pools.seed, run)) for run in range(RUNS))
    yield Measured(
        "sequential-run-length",
        statistics.fmean(clean),
        f"{len(clean)} runs of p-values drawn from {2 * windows} clean windows of {ROWS} a model, cut at {LONGEST:,}",
    )
    detail = ", ".join(f"{name} {statistics.fmean(values):.1f}" for name, values in delays.items())
    slowest = max(map(statistics.fmean, delays.values()))
    yield Measured("sequential-delay", slowest, f"the slowest of {detail}; windows of {ROWS}, {SHARE:.0%} hostile")


def _window(pools: Pools, hostile: Frame, share: float, index: int) -> Frame:
    return contaminated(pools, hostile, ROWS, share, seeded(11, pools.seed, index))


def _p_values(reference: Reference, windows: Sequence[Frame]) -> NDArray[np.float64]:
    results = [reference.test(window).p_value for window in windows]
    return np.array([p_value for p_value in results if p_value is not None])


def _run(p_values: NDArray[np.float64], shared: float, generator: np.random.Generator) -> float:
    """Windows until the alarm, p-values drawn with replacement."""
    M = NO_EVIDENCE
    for window in range(1, LONGEST + 1):
        M = accumulate(M, float(generator.choice(p_values)), shared=shared)
        if evidence_over_time(M) >= RUN_LENGTH:
            return float(window)
    return float(LONGEST)
