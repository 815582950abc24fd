"""Frames of natural traffic to a reference: which rows are fitted on, which are permuted, and what is fitted.

Everything fitted (mean, scale, bandwidth, axes) comes from `fit` rows, disjoint from the `reference` rows that change
places with a window's: scaling by the permuted rows' own statistics makes the level 27 to 100 % with heavy tails
(docs/decisions/0003-fit-rows-are-not-permuted.md).
"""

import hashlib
from collections.abc import Iterable
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
from hydrophone.detectors.kernels import median_distance
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
        fit, reference = _split(len(rows), fit_share, seed, max_reference_rows)
    else:
        rows = rows.take(time_order(rows))
        fit, reference = _split_blocks(len(rows), fit_share, seed, max_reference_rows, block_rows)
    predicted = rows.classes()
    strata = None if predicted is None else Strata.fit(predicted[fit], reference_rows=len(reference))
    assigned = np.zeros(len(fit), np.int64) if strata is None or predicted is None else strata.assign(predicted[fit])
    classes = 1 if strata is None else len(strata)
    arrays: dict[str, NDArray[Any]] = {}
    contracts: dict[str, LayerContract] = {}
    for name, values in sorted(rows.layers.items()):
        fitted, distance = _fit_layer(name, values[fit].astype(np.float32), assigned, classes)
        arrays |= fitted | {f"reference.{name}": values[reference]}
        contracts[name] = LayerContract(dimensions=values.shape[1], median_distance=distance)
    if predicted is not None:
        arrays[CLASSES] = predicted[reference]
    if rows.output is not None:
        arrays[OUTPUTS] = rows.output[reference]
    digest = hashlib.sha256(arrays_bytes(arrays)).hexdigest()
    manifest = Manifest(
        model=rows.model,
        version=version or digest[:12],
        layers=contracts,
        has_predicted=predicted is not None,
        output_classes=None if rows.output is None else rows.output.shape[1],
        classes=() if strata is None else strata.classes,
        sizes=Sizes(
            fit=len(fit),
            reference=len(reference),
            excluded_labelled=excluded_labelled,
            excluded_bad=excluded_bad,
            excluded_surplus=len(rows) - len(fit) - len(reference),
        ),
        fit_share=fit_share,
        seed=seed,
        block_rows=block_rows,
        permutations=permutations,
        alpha=alpha,
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


def _split(rows: int, fit_share: float, seed: int, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A seeded split: file order is not exchangeable, so it is always shuffled away."""
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, rows]))).permutation(rows)
    cut = min(max(round(rows * fit_share), MIN_ROWS), rows - MIN_ROWS)
    return order[:cut], order[cut : cut + most]


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


def _fit_layer(
    name: str, rows: NDArray[np.float32], strata: NDArray[np.int64], classes: int
) -> tuple[dict[str, NDArray[Any]], float]:
    """Mean and scale per feature, the two leading principal axes, closeness; and the scaled rows' median distance."""
    mean = rows.mean(0, dtype=np.float64)
    deviation = rows.std(0, dtype=np.float64)
    typical = float(np.sqrt(np.mean(deviation**2))) or 1.0
    scale = np.maximum(deviation, SCALE_FLOOR * typical)
    scaled = torch.from_numpy(((rows - mean) / scale).astype(np.float32))
    axes = np.zeros((rows.shape[1], 2), np.float32)
    leading = torch.linalg.svd(scaled, full_matrices=False).Vh[:2].numpy()
    axes[:, : leading.shape[0]] = leading.T
    fitted: dict[str, NDArray[Any]] = {
        f"fit.{name}.mean": mean.astype(np.float32),
        f"fit.{name}.scale": scale.astype(np.float32),
        f"fit.{name}.axes": axes,
    }
    closeness = Closeness.fit(scaled.numpy(), strata, classes).arrays()
    fitted |= {f"closeness.{name}.{part}": array for part, array in closeness.items()}
    return fitted, median_distance(scaled)
