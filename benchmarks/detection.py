"""How much a window of mostly clean traffic gives away: power by attack, share and window size, and what it costs in
false alarms. Run with `python -m benchmarks.detection`; the first run trains three small models and attacks them.
`--part` measures some of the rows.

References and windows are drawn from images no model was trained on; attacked images never meet their originals. Level
rows live in `detection_level.py`, the long table in `detection_table.py`.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from benchmarks import fashion
from benchmarks.detection_cost import cost_rows
from benchmarks.detection_effort import BRIEF, BRISK, THOROUGH, Effort, percents, rate_detail, seeded
from benchmarks.detection_level import level_rows, one_reference_rows
from benchmarks.detection_replay import replay_rows
from benchmarks.detection_samples import sample_rows
from benchmarks.detection_serial import serial_rows
from benchmarks.detection_table import (
    ALPHA,
    PLAIN_LAYER,
    PLAIN_ROWS,
    SHARES,
    SIZES,
    Cell,
    Methods,
    measure_cell,
    merged,
    plain_p_value,
    plain_reference,
    write,
)
from benchmarks.detection_time import sequential_rows
from benchmarks.fashion_pools import Pools, load_pools, predicted
from benchmarks.harness import RESULTS, Measured, load_goals, run
from benchmarks.published import Published
from benchmarks.windows import class_mix, contaminated
from numpy.typing import NDArray

from hydrophone.detectors import Reference, fit_reference
from hydrophone.schemas.frame import Frame, concat

THREADS: Final = 2
SHIFT_ROWS: Final = 250
SHIFT_SHARE: Final = 0.5
PARTS: Final = (
    "power",
    "samples",
    "shift",
    "replay",
    "serial",
    "sequential",
    "cost",
    "level",
    "one-reference",
    "table",
)
"""In the order they are measured: the last three take hours."""

POWER_ROW: Final = re.compile(r"power-(?P<attack>.+)-n(?P<size>\d+)-c(?P<percent>\d+)(?P<net>-net)?")


def reference_of(pools: Pools, effort: Effort) -> Reference:
    """All natural images but the clean traffic; the window test fits on some of them and permutes the others."""
    natural = concat([pools.fit, pools.calibrate])
    fit_share = min(max(1 - effort.reference_rows / len(natural), 0.1), 1 / 3)
    return fit_reference(
        [natural],
        permutations=effort.permutations,
        fit_share=fit_share,
        device="cpu",
        max_reference_rows=effort.reference_rows,
    )


# Power


def power_rows(models: Sequence[Pools], references: Sequence[Reference], effort: Effort) -> Iterator[Measured]:
    for name in load_goals("detection"):
        found = POWER_ROW.fullmatch(name)
        if found is None or found["attack"] not in models[0].attacks:
            continue
        size, share = int(found["size"]), int(found["percent"]) / 100
        hostile = partial(_attacked, found["attack"])
        flags = _flags(models, references, hostile, share, size, effort.power_windows)
        selection = _flags(models, references, _unattacked, share, size, effort.power_windows) if found["net"] else []
        yield _power(name, flags, selection)


def _attacked(name: str, pools: Pools) -> Frame:
    return pools.attacks[name]


def _unattacked(pools: Pools) -> Frame:
    return pools.sources


def _flags(
    models: Sequence[Pools],
    references: Sequence[Reference],
    hostile: Callable[[Pools], Frame],
    share: float,
    size: int,
    windows: int,
) -> list[list[bool]]:
    """Rejections, one list a model."""
    return [
        [
            reference.test(contaminated(pools, hostile(pools), size, share, seeded(pools.seed, size, index))).rejected
            for index in range(windows)
        ]
        for pools, reference in zip(models, references, strict=True)
    ]


def _power(name: str, flags: Sequence[Sequence[bool]], selection: Sequence[Sequence[bool]]) -> Measured:
    rates = [statistics.fmean(per_model) for per_model in flags]
    detail = f"{rate_detail([flag for per_model in flags for flag in per_model])}; by model {percents(rates)}"
    if not selection:
        return Measured(name, statistics.fmean(rates), detail)
    less = [statistics.fmean(per_model) for per_model in selection]
    return Measured(name, statistics.fmean(rates) - statistics.fmean(less), f"{detail}; unattacked {percents(less)}")


# Benign change


def shift_rows(pools: Pools, reference: Reference, effort: Effort) -> Iterator[Measured]:
    """One class grows from a tenth to half of the window; classes take turns.

    Promised is silence when the law of the activations given the *predicted* class stays; drawn by the true class it
    changes a little, for the model errs more often towards the common class.
    """
    labels = fashion.load().clean.labels
    holdout = plain_reference(pools.calibrate)
    windows = [_shifted(pools.clean, predicted(pools.clean), index) for index in range(effort.shift_windows)]
    stratified = [reference.test(window).rejected for window in windows]
    by_label = [reference.test(_shifted(pools.clean, labels, index)).rejected for index in range(effort.shift_windows)]
    plain = [plain_p_value(holdout, window) <= ALPHA for window in windows]
    yield Measured(
        "prior-shift-stratified",
        statistics.fmean(stratified),
        f"{rate_detail(stratified)}; windows of {SHIFT_ROWS}; drawn by true class {statistics.fmean(by_label):.1%}",
    )
    yield Measured(
        "prior-shift-plain",
        statistics.fmean(plain),
        f"{rate_detail(plain)}; one kernel test of {PLAIN_LAYER}, {PLAIN_ROWS} reference rows, the same windows",
    )


def _shifted(pool: Frame, classes: NDArray[np.integer], index: int) -> Frame:
    return class_mix(pool, classes, index % fashion.CLASSES, SHIFT_SHARE, SHIFT_ROWS, seeded(4, index))


# The long table


def long_table(models: Sequence[Pools], references: Sequence[Reference], effort: Effort) -> list[Cell]:
    """Cells of all models joined; the published method is shown for the first model alone, being slow."""
    cells = []
    for pools, reference in zip(models, references, strict=True):
        published = Published(pools.calibrate, redraws=effort.published_redraws) if pools.seed == 0 else None
        methods = Methods(reference, plain_reference(pools.calibrate), published)
        controls = {"none": pools.clean, "unattacked": pools.sources, **pools.noise}
        for size in SIZES:
            for name, hostile in {**controls, **pools.attacks}.items():
                for share in SHARES if name != "none" else (0.0,):
                    seed = (6, pools.seed, size)
                    rates = measure_cell(methods, pools, hostile, share, size, windows=effort.table_windows, seed=seed)
                    cells += [
                        Cell(name, share, size, method, layer, rate, effort.table_windows)
                        for (method, layer), rate in rates.items()
                    ]
    return list(merged(cells))


def measure(effort: Effort, parts: Collection[str], out: Path | None, is_quick: bool) -> Iterator[Measured]:
    torch.set_num_threads(THREADS)
    effort = BRIEF if is_quick else effort
    models = [load_pools(seed, effort.profile) for seed in range(effort.models)]
    references = [reference_of(pools, effort) for pools in models]
    first, reference = models[0], references[0]
    measures: dict[str, Callable[[], Iterator[Measured]]] = {
        "power": lambda: power_rows(models, references, effort),
        "samples": lambda: sample_rows(models, references, effort),
        "shift": lambda: shift_rows(first, reference, effort),
        "replay": lambda: replay_rows(first, reference, effort),
        "serial": lambda: serial_rows(effort),
        "sequential": lambda: sequential_rows(models, references, effort),
        "cost": lambda: cost_rows(effort.permutations, rounds=3 if is_quick else 7),
        "level": lambda: level_rows(first.train, effort),
        "one-reference": lambda: one_reference_rows(first.train, effort),
    }
    for part, rows in measures.items():
        if part in parts:
            yield from rows()
    if "table" in parts and effort.table_windows and (not is_quick or out is not None):
        write(out or RESULTS, long_table(models, references, effort), _heading(models, effort))


def _heading(models: Sequence[Pools], effort: Effort) -> dict[str, object]:
    """What the table was measured on."""
    return {
        "accuracy": [pools.accuracy for pools in models],
        "sources": len(models[0].sources),
        "reference_rows": effort.reference_rows,
        "permutations": effort.permutations,
        "attacks": [[asdict(record) for record in pools.records] for pools in models],
    }


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--profile", choices=("thorough", "brisk"), default="thorough")
    parser.add_argument("--windows", type=int, help="windows a power row and model")
    parser.add_argument("--permutations", type=int)
    parser.add_argument("--part", choices=PARTS, help="measure this alone, and keep it in a file of its own")
    parser.add_argument("--out", type=Path)
    known, rest = parser.parse_known_args()
    effort = BRISK if known.profile == "brisk" else THOROUGH
    if known.windows is not None:
        effort = replace(effort, power_windows=known.windows)
    if known.permutations is not None:
        effort = replace(effort, permutations=known.permutations)
    arguments = [*rest, *(["--out", str(known.out)] if known.out else [])]
    status = run(
        "detection",
        partial(measure, effort, PARTS if known.part is None else (known.part,), known.out),
        packages=("adversarial-robustness-toolbox", "scikit-learn"),
        arguments=arguments,
        part=known.part or "",
    )
    return 0 if "--quick" in rest else status


if __name__ == "__main__":
    sys.exit(main())
