"""What the branches on single-row scores cost beside the kernel statistics of the same window."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np
import torch
from benchmarks.harness import Measured

from hydrophone.detectors import Reference, fit_reference
from hydrophone.detectors.permutation import JointNull, studentise
from hydrophone.detectors.window_test import WindowRows, _Window, window_statistics
from hydrophone.schemas.frame import Frame

__all__ = ["cost_rows"]

REFERENCE_ROWS: Final = 1_000
ROWS: Final = 500
LAYERS: Final = (64, 64, 128, 128, 128, 256, 256, 256)
CLASSES: Final = 10


def cost_rows(permutations: int, rounds: int) -> Iterator[Measured]:
    """Medians of both sides in turn; the same rows, the same splits, ten classes."""
    reference = fit_reference(
        [_traffic(REFERENCE_ROWS * 3 // 2, 1)], permutations=permutations, max_reference_rows=REFERENCE_ROWS
    )
    window = _traffic(ROWS, 2)
    assert window.predicted is not None, "traffic has classes"
    assert reference.prepared.strata is not None, "so has the reference"
    rows = WindowRows(window.layers, reference.prepared.strata.assign(window.predicted), is_stratified=True)
    sides: dict[str, Callable[[], object]] = {
        "fused": partial(_whole, reference, rows),
        "kernels": partial(_kernels_alone, reference, rows),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for name, side in sides.items():
                start = time.perf_counter()
                side()
                if turn:  # the first fills caches
                    seconds[name].append(time.perf_counter() - start)
    fused, kernels = (statistics.median(seconds[name]) for name in ("fused", "kernels"))
    ratio = statistics.median(a / b for a, b in zip(seconds["fused"], seconds["kernels"], strict=True))
    detail = f"{fused * 1000:.0f} against {kernels * 1000:.0f} ms, medians of {rounds}; {len(LAYERS)} layers"
    yield Measured("fused-cost", ratio, f"{detail}, n={reference.manifest.sizes.reference}, m={ROWS}, B={permutations}")


def _whole(reference: Reference, rows: WindowRows) -> float:
    return window_statistics(reference.prepared, rows).joint.p_value()


def _kernels_alone(reference: Reference, rows: WindowRows) -> float:
    """The window test without closeness, ranks and tails."""
    prepared = reference.prepared
    window = _Window(prepared, rows, np.argsort(rows.classes, kind="stable"))
    found = []
    for index, layer in enumerate(prepared.layers):
        Y = layer.scaled(window.values[layer.name])
        U, same = window._global(index, layer, Y)[0], window._same_class(index, layer, Y)[0]  # noqa: SLF001
        found.append(studentise(torch.cat([U, same]), torch.tensor(layer.centres, dtype=torch.float64).repeat(2)))
    return JointNull(torch.cat(found)).p_value()


def _traffic(rows: int, seed: int) -> Frame:
    generator = np.random.default_rng(seed)
    predicted = generator.integers(0, CLASSES, rows)
    layers = {
        f"layer{index}": (generator.standard_normal((rows, d)) + predicted[:, None] / CLASSES).astype(np.float32)
        for index, d in enumerate(LAYERS)
    }
    return Frame("cost", layers, event_time_ms=np.zeros(rows, np.int64), predicted=predicted)
