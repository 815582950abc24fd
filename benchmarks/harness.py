"""What every benchmark program shares: goals in, a table and a results file out.

Run a program as a module from the repository's root, `python -m benchmarks.tap`; `--quick` is a short run that proves
the program works and leaves the kept results alone. What is measured, and how, is each program's own.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

__all__ = ["Goal", "Measured", "interleaved", "load_goals", "provenance", "run", "wilson"]

HERE: Final = Path(__file__).parent
GOALS: Final = HERE / "goals.json"
RESULTS: Final = HERE / "results"

PACKAGES: Final = ("hydrophone", "torch", "numpy", "confluent-kafka")
"""Versions stated with every result; a program names what else it compares itself with."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of a section of `goals.json`. `goal` is a pair where `better` is `within`."""

    id: str
    goal: float | tuple[float, float]
    better: Literal["higher", "lower", "within"]
    unit: str
    what: str

    def is_reached(self, value: float) -> bool:
        if isinstance(self.goal, tuple):
            low, high = self.goal
            return low <= value <= high
        return value >= self.goal if self.better == "higher" else value <= self.goal


@dataclass(frozen=True, slots=True)
class Measured:
    """The number for one row; `detail` says with what it was measured and how much it varied."""

    id: str
    value: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    measured: float
    goal: float | tuple[float, float]
    better: str
    reached: bool
    detail: str


def load_goals(section: str, path: Path = GOALS) -> dict[str, Goal]:
    goals = json.loads(path.read_text())[section]
    pairs = ({**goal, "goal": tuple(goal["goal"])} if isinstance(goal["goal"], list) else goal for goal in goals)
    return {goal["id"]: Goal(**goal) for goal in pairs}


def interleaved(
    sides: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 3, calls: int = 1
) -> dict[str, list[float]]:
    """Seconds per call of each side, one entry a round.

    All sides run in every round, in turning order, so that a drift of the machine meets each alike.
    """
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            side = sides[name]
            start = time.perf_counter()
            for _ in range(calls):
                side()
            elapsed = (time.perf_counter() - start) / calls
            if turn >= 0:
                seconds[name].append(elapsed)
    return seconds


def median_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile; at least two values."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Bounds of a rate at 95 % by default (Wilson 1927); n at least 1."""
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def run(
    section: str,
    measure: Callable[[bool], Iterable[Measured]],
    *,
    packages: Sequence[str] = (),
    arguments: Sequence[str] | None = None,
    part: str = "",
) -> int:
    """Measure a section, print it and, unless `--quick`, keep it. `measure` is told whether to be quick.

    With `part`, a name, only some rows are measured, and kept in a file of their own. The exit status is 1 when a row
    of the whole section was not measured, never because a goal was missed.
    """
    parser = argparse.ArgumentParser(description=f"Measures the section `{section}` of benchmarks/goals.json.")
    parser.add_argument(
        "--quick", action="store_true", help="a short run that proves the program works; keeps no results"
    )
    parser.add_argument("--out", type=Path, help="folder for the results file; benchmarks/results unless --quick")
    options = parser.parse_args(arguments)
    goals = load_goals(section)
    measured: dict[str, Measured] = {}
    for row in measure(options.quick):
        measured[row.id] = row
        print(f"{row.id}: {row.value:.4g}  ({row.detail})", file=sys.stderr, flush=True)
    rows = [_row(goal, measured[goal.id]) for goal in goals.values() if goal.id in measured]
    _print_table(rows, goals)
    if (folder := options.out or (None if options.quick else RESULTS)) is not None:
        _write(folder / f"{section}{part and '-'}{part}.json", rows, (*PACKAGES, *packages))
    print(f"{sum(row.reached for row in rows)} of {len(rows) if part else len(goals)} reached")
    if part:
        return 0
    for absent in goals.keys() - measured.keys():
        print(f"not measured: {absent}", file=sys.stderr)
    return 0 if goals.keys() == measured.keys() else 1


def _row(goal: Goal, measured: Measured) -> _Row:
    value = float(f"{measured.value:.4g}")
    # Judged before rounding: rounding must not carry a value over its goal.
    return _Row(goal.id, value, goal.goal, goal.better, goal.is_reached(measured.value), measured.detail)


def _print_table(rows: Sequence[_Row], goals: Mapping[str, Goal]) -> None:
    signs = {"higher": ">=", "lower": "<=", "within": "in"}
    lines = [("", "measured", "goal", "", "reached", "")]
    for row in rows:
        goal = list(row.goal) if isinstance(row.goal, tuple) else row.goal
        reached = "yes" if row.reached else "NO"
        lines.append(
            (row.name, f"{row.measured:g}", f"{signs[row.better]} {goal}", goals[row.name].unit, reached, row.detail)
        )
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _write(path: Path, rows: Sequence[_Row], packages: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    result = provenance(packages) | {"rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(result, indent=1) + "\n")


def provenance(packages: Iterable[str]) -> dict[str, Any]:
    """What was measured, where, and with which versions: what a reader of numbers needs beside them."""
    return {
        "commit": _commit(),
        "machine": _machine(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
    }


def _commit() -> str:
    """The commit measured; with `+` when files differed from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(("git", *arguments), cwd=HERE, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--verify", "HEAD") or "none"
    return f"{commit}+" if git("status", "--porcelain", "--untracked-files=no") else commit


def _machine() -> str:
    """Processor, cores and accelerator: what a reader needs to place the numbers, and nothing that names the host."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{models[0] if models else platform.machine()}, {cores} cores, {platform.system()}{_accelerator()}"


def _accelerator() -> str:
    torch = sys.modules.get("torch")
    return f", {torch.cuda.get_device_name()}" if torch is not None and torch.cuda.is_available() else ", no GPU"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
