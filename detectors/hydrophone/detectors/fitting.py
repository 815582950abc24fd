"""Frames of natural traffic to a reference: which rows are fitted on, which are permuted, and what is fitted.

Everything fitted (mean, scale, bandwidth, axes) comes from `fit` rows, disjoint from the `reference` rows that change
places with a window's: scaling by the permuted rows' own statistics makes the level 27 to 100 % with heavy tails
(docs/decisions/0003-fit-rows-are-not-permuted.md).
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hydrophone.detectors.artefact import (
    ARRAYS,
    CLASSES,
    OUTPUTS,
    LayerContract,
    Manifest,
    ReferenceArtefact,
    Sizes,
    arrays_bytes,
)
from hydrophone.detectors.closeness import Closeness
from hydrophone.detectors.detection_rate import RatePool, baseline_rate
from hydrophone.detectors.kernels import BANDWIDTH_FACTORS, median_distance
from hydrophone.detectors.prepared import scaled
from hydrophone.detectors.repeats import RepeatRule, exact_leaders
from hydrophone.detectors.replay import blocks_of, count_repetition
from hydrophone.detectors.strata import Strata
from hydrophone.schemas.errors import FrameInvalid, ReferenceInvalid
from hydrophone.schemas.frame import Frame, concat

__all__ = ["BLOCK_ROWS", "MAX_REFERENCE_ROWS", "MIN_ROWS", "fit_artefact", "time_order"]

MIN_ROWS: Final = 20
"""Rows each of the two parts needs."""

BLOCK_ROWS: Final = 20
"""Rows a block, unless told otherwise."""

MIN_BLOCKS: Final = 10
"""Blocks of a reference that change sides: five of a window's and ten make 3,003 splits."""

MAX_REFERENCE_ROWS: Final = 8_000
"""Permuted rows kept unless told otherwise: 16 times a window of 500."""

REPEAT_ROWS: Final = 512
"""Rows in which repeats are sought, as in a window of the usual size: a popular input is then left as often here as
there. Sought among all rows at once, it would be left once here, and often in the windows taken together."""

SCALE_FLOOR: Final = 0.1
"""Least scale of a feature, as a share of the layer's: a unit that hardly fires on clean traffic would drown all."""


def fit_artefact(
    frames: Iterable[Frame],
    *,
    permutations: int,
    alpha: float,
    seed: int,
    fit_share: float,
    max_reference_rows: int = MAX_REFERENCE_ROWS,
    block_rows: int | None = None,
    version: str | None = None,
) -> ReferenceArtefact:
    """Fit on all rows labelled 0 or not at all; with `block_rows`, parted in runs of so many rows in time order.

    Raises `ReferenceInvalid` naming the rule that the rows break.
    """
    _check(permutations, alpha, seed, fit_share, max_reference_rows, block_rows)
    rows, excluded_labelled, excluded_bad = _natural_rows(list(frames))
    if block_rows is None:
        fit, others = _split(len(rows), fit_share, seed)
    else:
        rows = rows.take(time_order(rows))
        fit, others = _split_blocks(len(rows), fit_share, seed, max_reference_rows, block_rows)
    scales, medians = _scales(rows, fit)
    predicted = rows.classes()
    rule = RepeatRule.fitted(medians, scales, has_predicted=predicted is not None, has_output=rows.output is not None)
    distinct = _distinct(rows, rule)
    fit, others = fit[distinct[fit]], others[distinct[others]]
    _check_distinct(len(rows), fit, others)
    reference = others[:max_reference_rows]
    strata = None if predicted is None else Strata.fit(predicted[fit], reference_rows=len(reference))
    assigned = np.zeros(len(rows), np.int64) if strata is None or predicted is None else strata.assign(predicted)
    classes = 1 if strata is None else len(strata)
    arrays: dict[str, NDArray[Any]] = dict(scales)
    for name, values in sorted(rows.layers.items()):
        scaled = _scaled(values[fit], scales, name)
        closeness = Closeness.fit(scaled, assigned[fit], classes).arrays()
        arrays |= {f"closeness.{name}.{part}": array for part, array in closeness.items()}
        arrays[f"reference.{name}"] = values[reference]
    if predicted is not None:
        arrays[CLASSES] = predicted[reference]
    if rows.output is not None:
        arrays[OUTPUTS] = rows.output[reference]
    digest = hashlib.sha256(arrays_bytes(arrays)).hexdigest()
    manifest = Manifest(
        model=rows.model,
        version=version or digest[:12],
        layers={
            name: LayerContract(dimensions=values.shape[1], median_distance=medians[name])
            for name, values in sorted(rows.layers.items())
        },
        has_predicted=predicted is not None,
        output_classes=None if rows.output is None else rows.output.shape[1],
        classes=() if strata is None else strata.classes,
        stratum_rows=() if strata is None else strata.counts(assigned[others]),
        sizes=Sizes(
            fit=len(fit),
            reference=len(reference),
            excluded_labelled=excluded_labelled,
            excluded_bad=excluded_bad,
            excluded_repeated=int((~distinct).sum()),
            excluded_surplus=int(distinct.sum()) - len(fit) - len(reference),
        ),
        repetition=count_repetition(rows.event_time_ms, lambda block: _repeated(rows, rule, block)),
        fit_share=fit_share,
        seed=seed,
        block_rows=block_rows,
        permutations=permutations,
        alpha=alpha,
        baseline_detection_rate=_baseline(arrays, medians, strata, alpha, int(digest[:16], 16)),
        files={ARRAYS: digest},
    )
    return ReferenceArtefact(manifest, arrays)


def _check(
    permutations: int, alpha: float, seed: int, fit_share: float, max_reference_rows: int, block_rows: int | None
) -> None:
    rules = [
        (permutations >= 1, f"`permutations` must be at least 1; got {permutations}"),
        (0 < alpha < 1, f"`alpha` must lie between 0 and 1; got {alpha}"),
        (seed >= 0, f"`seed` must not be negative; got {seed}"),
        (0 < fit_share < 1, f"`fit_share` must lie between 0 and 1; got {fit_share}"),
        (
            max_reference_rows >= MIN_ROWS,
            f"`max_reference_rows` must be at least {MIN_ROWS}; got {max_reference_rows}",
        ),
        (block_rows is None or block_rows >= 2, f"`block_rows` must be at least 2; got {block_rows}"),
        (
            permutations < 1 or alpha >= 1 / (permutations + 1),
            f"`permutations` must be more for alpha {alpha}: no p is below 1 / (permutations + 1); got {permutations}",
        ),
    ]
    broken = [message for holds, message in rules if not holds]
    if broken:
        raise ReferenceInvalid("; ".join(broken))


def _natural_rows(frames: list[Frame]) -> tuple[Frame, int, int]:
    if not frames:
        raise ReferenceInvalid("a reference is fitted on frames of natural traffic; got none")
    _check_alike(frames)
    try:
        rows = concat(frames)
    except FrameInvalid as error:
        raise ReferenceInvalid(f"the frames do not belong together: {error}") from None
    natural = np.concatenate([np.full(len(f), fill_value=True) if f.label is None else f.label == 0 for f in frames])
    finite = rows.finite_rows()
    good = natural if finite is None else natural & finite
    if int(good.sum()) < 3 * MIN_ROWS:
        raise ReferenceInvalid(
            f"a reference needs at least {3 * MIN_ROWS} natural rows with finite values; got {int(good.sum())} "
            f"(of {len(rows)}, {int((~natural).sum())} labelled otherwise); record more validation traffic"
        )
    return rows.take(good), int((~natural).sum()), int((natural & ~good).sum())


def _check_alike(frames: list[Frame]) -> None:
    """What some frames lack, joining would drop from all: the reference would be blind there and not say so."""
    layers = [frozenset(frame.layers) for frame in frames]
    uneven = sorted(frozenset.union(*layers) - frozenset.intersection(*layers))
    if uneven:
        raise ReferenceInvalid(f"all frames must bring the same layers; some lack {uneven}")
    if len({frame.output is None for frame in frames}) > 1:
        raise ReferenceInvalid("either all frames bring `output`, or none does; some lack it")
    if len({frame.classes() is None for frame in frames}) > 1:
        raise ReferenceInvalid("either all frames bring `predicted` or `output`, or none does; some lack both")


def _split(rows: int, fit_share: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A seeded split: file order is not exchangeable, so it is always shuffled away."""
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, rows]))).permutation(rows)
    cut = min(max(round(rows * fit_share), MIN_ROWS), rows - MIN_ROWS)
    return order[:cut], order[cut:]


def _split_blocks(
    rows: int, fit_share: float, seed: int, most: int, block_rows: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The same of whole blocks of rows in time order; those of the reference stay in time order. Rows over are fit
    rows."""
    blocks = rows // block_rows
    needed = MIN_BLOCKS + -(-MIN_ROWS // block_rows)
    if blocks < needed:
        raise ReferenceInvalid(
            f"a reference of blocks needs at least {needed} blocks of `block_rows` {block_rows}; got {rows} natural "
            "rows; record more validation traffic or choose smaller blocks"
        )
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, rows]))).permutation(blocks)
    cut = min(max(round(blocks * fit_share), -(-MIN_ROWS // block_rows)), blocks - MIN_BLOCKS)
    most_blocks = max(most // block_rows, MIN_BLOCKS)
    starts = np.arange(block_rows)[None]
    fit = (order[:cut, None] * block_rows + starts).ravel()
    reference = (np.sort(order[cut : cut + most_blocks])[:, None] * block_rows + starts).ravel()
    return np.r_[fit, np.arange(blocks * block_rows, rows)], reference


def time_order(rows: Frame) -> NDArray[np.intp]:
    """Rows by event time; at the same instant by frame, then by place in it."""
    origins = rows.row_origins()
    return np.lexsort((origins.rows, origins.frames()[1], rows.event_time_ms))


def _baseline(
    arrays: Mapping[str, NDArray[Any]],
    medians: Mapping[str, float],
    strata: Strata | None,
    alpha: float,
    seed: int,
) -> float | None:
    """Of the reference rows alone: rows that were fitted on are not exchangeable with any others."""
    pools: dict[str, RatePool] = {}
    for name, median in medians.items():
        mean, scale = (torch.from_numpy(arrays[f"fit.{name}.{part}"]) for part in ("mean", "scale"))
        rows = scaled(torch.from_numpy(arrays[f"reference.{name}"].astype(np.float32)), mean, scale)
        pools[name] = RatePool(rows, tuple(factor * median for factor in BANDWIDTH_FACTORS))
    n = len(next(iter(pools.values())).rows)
    assigned = np.zeros(n, np.int64) if strata is None else strata.assign(arrays[CLASSES])
    return baseline_rate(pools, assigned, alpha=alpha, seed=seed, is_stratified=strata is not None)


def _scales(rows: Frame, fit: NDArray[np.intp]) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """Mean and scale per feature and the two leading principal axes of every layer; and the scaled rows' median
    distance. Of fit rows of different bytes: what tells near repeats apart needs a scale first.
    """
    tables = [values[fit] for values in rows.layers.values()]
    fit = fit[exact_leaders(tables) == np.arange(len(fit))]
    arrays: dict[str, NDArray[Any]] = {}
    medians = {}
    for name, values in sorted(rows.layers.items()):
        fitted = values[fit].astype(np.float32)
        deviation = fitted.std(0, dtype=np.float64)
        typical = float(np.sqrt(np.mean(deviation**2))) or 1.0
        arrays[f"fit.{name}.mean"] = fitted.mean(0, dtype=np.float64).astype(np.float32)
        arrays[f"fit.{name}.scale"] = np.maximum(deviation, SCALE_FLOOR * typical).astype(np.float32)
        scaled = torch.from_numpy(_scaled(fitted, arrays, name))
        axes = np.zeros((values.shape[1], 2), np.float32)
        leading = torch.linalg.svd(scaled, full_matrices=False).Vh[:2].numpy()
        axes[:, : leading.shape[0]] = leading.T
        arrays[f"fit.{name}.axes"] = axes
        medians[name] = median_distance(scaled)
    return arrays, medians


def _scaled(values: NDArray[Any], scales: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    mean, scale = (scales[f"fit.{name}.{part}"] for part in ("mean", "scale"))
    return np.asarray((values.astype(np.float32) - mean) / scale, np.float32)


def _distinct(rows: Frame, rule: RepeatRule) -> NDArray[np.bool_]:
    """Which rows repeat none of their block: what a window's rows are asked, of as many rows."""
    distinct = np.ones(len(rows), bool)
    for block in blocks_of(rows.event_time_ms, REPEAT_ROWS):
        distinct[block] = rule.leaders(rows.take(block)) == np.arange(len(block))
    return distinct


def _repeated(rows: Frame, rule: RepeatRule, block: NDArray[np.intp]) -> int:
    return int((rule.leaders(rows.take(block)) != np.arange(len(block))).sum())


def _check_distinct(natural: int, fit: NDArray[np.intp], others: NDArray[np.intp]) -> None:
    if min(len(fit), len(others)) < MIN_ROWS:
        raise ReferenceInvalid(
            f"a reference needs at least {MIN_ROWS} distinct rows to fit on and {MIN_ROWS} to test against; got "
            f"{len(fit)} and {len(others)}, the rest of {natural} repeat others; record more varied traffic"
        )
