"""How well single rows are told apart: uncertainty and closeness, gate and forest, beside the published numbers. Run
with `python -m benchmarks.samples`; the first run makes the attacked images (`samples_pools.py`).

Everything is fitted on images that no model was trained on, and attacks are held out by source image: half of the
sources are fitted on and the other half scored, then the other way round. Published: the area under the ROC curve "up
to 96 %" (arXiv 2012.06390, fitted and scored on the same rows), a precision of .66 for clean against adversarial and of
.37 for which attack. What the tables are made of lives in `samples_tables.py`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from benchmarks.harness import Measured, run, wilson
from benchmarks.samples_pools import LARGE, SMALL, SamplePools, load_sample_pools
from benchmarks.samples_tables import FAMILIES, KIN, Tables, auc, mean_precision
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from hydrophone.detectors.samples import fit_samples
from hydrophone.detectors.samples.attribution import AttackForest
from hydrophone.detectors.samples.rows import Rows
from hydrophone.schemas.frame import Frame, concat

MEASURED: Final = ("FGSM.12", "PGD.12", "DeepFool", "PGD.03")
"""The attacks that have a goal."""

SIX: Final = (
    "uncertainty.variance",
    "uncertainty.entropy",
    "uncertainty.mutual_information",
    "uncertainty.confidence",
    "closeness.kde",
    "closeness.kl",
)
FIVE_LAYERS: Final = ("conv2", "conv3", "conv4", "fc1", "fc2")
COST_ROWS: Final = 1_024
MIN_ATTACKS: Final = 4
"""Fewer make no question of which attack it was."""

STRANGERS: Final = ("digits", "inverted", "uniform-noise", "pixel-shuffle")
Rates = Mapping[str, Sequence[float]]


def measure(models: Sequence[int], without: Sequence[str], is_quick: bool) -> Iterator[Measured]:
    torch.set_num_threads(2)
    pools = [_pools(seed, without, is_quick) for seed in models]
    tables = [Tables(each) for each in pools]
    yield from own_rows("six", "six metrics alone", SIX, tables)
    yield from own_rows("full", "all measures in one regression", None, tables)
    yield from left_out_rows(tables)
    yield from forest_rows(tables)
    yield from gate_rows(tables)
    yield from cost_rows(tables[0], rounds=5 if is_quick else 15)


def _pools(seed: int, without: Sequence[str], is_quick: bool) -> SamplePools:
    if is_quick:
        from benchmarks.fashion_pools import QUICK  # noqa: PLC0415

        return load_sample_pools(seed, QUICK, QUICK.attacks)
    return load_sample_pools(seed, attacks=[attack for attack in (*SMALL, *LARGE) if attack not in without])


# One attack at a time: what the document on six metrics does


def own_rows(name: str, what: str, measures: Sequence[str] | None, tables: Sequence[Tables]) -> Iterator[Measured]:
    """Positives: all attacked sources, failed attacks among them. Negatives: the same sources unattacked, and with
    Gaussian noise of the attack's size."""
    for attack in (a for a in MEASURED if a in tables[0].measures):
        per_model = [table.own_attack(attack, measures) for table in tables]
        yield Measured(
            f"{name}-auc-{attack}",
            statistics.fmean(found.both for found in per_model),
            f"{what}; by model {_by_model([found.both for found in per_model])}; negatives the unattacked alone "
            f"{_mean(found.sources for found in per_model)}, noise alone {_mean(found.noise for found in per_model)}, "
            f"clean traffic {_mean(found.clean for found in per_model)}; successful attacks alone "
            f"{_mean(found.fooled for found in per_model)}",
        )


def left_out_rows(tables: Sequence[Tables]) -> Iterator[Measured]:
    """The detector as `reference fit --labelled` makes it, that never saw an attack of this family."""
    for attack in (a for a in ("DeepFool", "FGSM.12", "PGD.12") if a in tables[0].measures):
        family = next(kin for kin in KIN if attack in kin)
        if not any(other in tables[0].measures for kin in KIN for other in kin if kin != family):
            continue
        per_model = [table.left_out(attack, family) for table in tables]
        yield Measured(
            f"left-out-auc-{attack}",
            statistics.fmean(found.both for found in per_model),
            f"left out {', '.join(family)}; by model {_by_model([found.both for found in per_model])}; negatives the "
            f"unattacked alone {_mean(found.sources for found in per_model)}, noise alone "
            f"{_mean(found.noise for found in per_model)}, clean traffic {_mean(found.clean for found in per_model)}",
        )


# Which attack


def forest_rows(tables: Sequence[Tables]) -> Iterator[Measured]:
    """Of the attacks there are: where some were left out the details say of how many the row is made."""
    for size, wanted in (("large", LARGE), ("small", SMALL)):
        attacks = tuple(attack for attack in wanted if attack in tables[0].measures)
        if len(attacks) < MIN_ATTACKS:
            continue
        per_model = [table.forest(attacks) for table in tables]
        areas = [auc(clean, hostile) for clean, hostile, _, _ in per_model]
        precisions = [
            float(average_precision_score(np.r_[np.zeros(len(c)), np.ones(len(h))], np.r_[c, h]))
            for c, h, _, _ in per_model
        ]
        six = [mean_precision(shares, truth, attacks) for _, _, shares, truth in per_model]
        families = [
            mean_precision(*_grouped(shares, truth, attacks), _present(attacks)) for _, _, shares, truth in per_model
        ]
        yield Measured(
            f"forest-clean-adv-auc-{size}",
            statistics.fmean(areas),
            f"{', '.join(attacks)}; by model {_by_model(areas)}; average precision {_mean(precisions)}, "
            f"attacked {len(attacks)} to 1; published precision .66; which of them {_mean(six)}, "
            f"families {_mean(families)}",
        )
        if size == "large":
            detail = f"{', '.join(attacks)}; by model"
            yield Measured(
                "forest-families-map",
                statistics.fmean(families),
                f"{_families(attacks)}; by model {_by_model(families)}",
            )
            yield Measured(
                "forest-six-map",
                statistics.fmean(six),
                f"{detail} {_by_model(six)}; {len(attacks)} attacks; random {1 / len(attacks):.3f}, published .37",
            )


def _present(attacks: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name, kin in FAMILIES.items() if set(kin) & set(attacks))


def _families(attacks: Sequence[str]) -> str:
    kept = {name: [attack for attack in attacks if attack in FAMILIES[name]] for name in _present(attacks)}
    return "; ".join(f"{name}: {', '.join(kin)}" for name, kin in kept.items())


def _grouped(
    shares: NDArray[np.float64], truth: NDArray[np.str_], attacks: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    family = {attack: name for name, kin in FAMILIES.items() for attack in kin}
    columns = [shares[:, [k for k, a in enumerate(attacks) if family[a] == name]].sum(1) for name in _present(attacks)]
    return np.column_stack(columns), np.array([family[name] for name in truth])


# The gate


def gate_rows(tables: Sequence[Tables]) -> Iterator[Measured]:
    clean = [1 - table.detectors.gate(table.pools.clean).accepted.mean() for table in tables]
    n = len(tables[0].pools.clean)
    hits = round(statistics.fmean(clean) * n)
    low, high = wilson(hits, n)
    yield Measured(
        "gate-clean-rejected",
        statistics.fmean(clean),
        f"{n} test images at a conformal level of 5 %, all layers; 95 % interval {low:.3f} to {high:.3f}; by model "
        f"{_by_model(clean)}",
    )
    for name in STRANGERS:
        found = [_refused(table, name) for table in tables]
        alone = [_alone(table, name) for table in tables]
        rotated = (
            f"; rotated by 90 degrees {_mean(_refused(t, 'rotated') for t in tables)}" if name == "inverted" else ""
        )
        yield Measured(
            f"gate-{name}",
            statistics.fmean(found),
            f"{len(tables[0].pools.strangers[name])} images; by model {_by_model(found)}; the embedding's likelihood "
            f"alone {_mean(alone)}{rotated}",
        )


def _refused(table: Tables, name: str) -> float:
    return float(1 - table.detectors.gate(table.pools.strangers[name]).accepted.mean())


def _alone(table: Tables, name: str) -> float:
    """By the last hidden layer's likelihood, below the 5 % point of clean calibration rows."""
    measure = "gate.log_likelihood.fc2"
    threshold = np.quantile(table.column("calibration", measure), 0.05)
    return float((table.column(name, measure) < threshold).mean())


# What it costs


def cost_rows(table: Tables, *, rounds: int) -> Iterator[Measured]:
    natural = concat([table.pools.fit, table.pools.calibrate]).only(FIVE_LAYERS)
    detectors = fit_samples([natural], embedding="fc2", device="cpu")
    frame = table.pools.clean.only(FIVE_LAYERS).take(np.arange(COST_ROWS))
    sides: dict[str, Callable[[], object]] = {"judge": partial(detectors.judge, frame)}
    known = next((a for a in LARGE if a in table.measures), None)
    if known is not None:
        forest = table.any_forest([a for a in LARGE if a in table.measures])
        hostile = table.pools.attacks[known].take(np.arange(min(COST_ROWS, len(table.pools.attacks[known]))))
        sides["attribution"] = partial(_attribute, forest, hostile)
    seconds = {name: _timed(side, rounds) for name, side in sides.items()}
    yield _cost(
        "cost-row", seconds["judge"], COST_ROWS, f"uncertainty, closeness and gate over {', '.join(FIVE_LAYERS)}"
    )
    if known is not None:
        yield _cost("cost-attribution-row", seconds["attribution"], len(hostile), "features read and trees asked")


def _attribute(forest: AttackForest, frame: Frame) -> object:
    rows = Rows(frame, torch.device("cpu"))
    features = forest.features(rows, {name: _COLUMN[: len(frame)] for name in forest.measures}, np.arange(len(frame)))
    assert features is not None, "the frame brings what a forest needs"
    return forest.probabilities(features)


_COLUMN: Final = np.linspace(-3.0, 3.0, COST_ROWS)
"""Measures are had by then, so any will do: how long a tree takes does not depend on which leaf it reaches."""


def _timed(side: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """CPU and wall seconds of each round, on one thread: CPU time does not count what else the machine does."""
    torch.set_num_threads(1)
    side()
    found = []
    for _ in range(rounds):
        cpu, wall = time.process_time(), time.perf_counter()
        side()
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    return found


def _cost(name: str, seconds: Sequence[tuple[float, float]], rows: int, what: str) -> Measured:
    each = [cpu * 1e3 / rows for cpu, _ in seconds]
    wall = statistics.median(seconds * 1e3 / rows for _, seconds in seconds)
    return Measured(
        name,
        statistics.median(each),
        f"{what}; frames of {rows} rows, CPU time on one thread, median of {len(each)}, {min(each):.4f} to "
        f"{max(each):.4f}; by the clock, beside other work, {wall:.4f}",
    )


def _mean(values: Iterator[float] | Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f}"


def _by_model(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--models", type=int, nargs="+", default=[0, 1, 2], help="seeds of the models")
    parser.add_argument(
        "--without", nargs="+", default=[], help="attacks to leave out; their own rows are not measured"
    )
    known, rest = parser.parse_known_args()
    is_quick = "--quick" in rest
    status = run(
        "samples",
        partial(measure, known.models[:1] if is_quick else known.models, known.without),
        packages=("adversarial-robustness-toolbox", "scikit-learn", "skops"),
        arguments=rest,
    )
    return 0 if is_quick else status


if __name__ == "__main__":
    sys.exit(main())
