"""How surprising a window's repetitions are, given how often natural traffic repeats itself; and whose they are.

Which rows repeat another is decided in `repeats.py`. The rate depends on how many rows are looked at together (popular
inputs meet more often in larger windows, retries do not), so it is counted in natural blocks of several sizes.
"""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import betabinom

from hydrophone.detectors.artefact import Repetition
from hydrophone.detectors.repeats import RepeatRule, groups_of
from hydrophone.detectors.result import LABEL_LIMIT
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.score import Repeated, Replay

__all__ = ["BLOCK_SIZES", "blocks_of", "count_repetition", "repetition_p_value", "replay_of"]

BLOCK_SIZES: Final = (32, 64, 128, 256, 512, 1024, 2048)
"""Rows looked at together; a window is held against the smallest that is not smaller."""

JEFFREYS: Final = 0.5
"""Added to repetitions and to the rest: natural traffic that never repeated a row may do so tomorrow."""

MANY_BLOCKS: Final = 8
"""Blocks that tell how uneven they are."""

MOST_CORRELATED: Final = 0.99
"""Of two rows of a block: at 1 the law has no finite parameters."""

TOP_GROUPS: Final = 10
TOP_LABELS: Final = 10


def blocks_of(event_time_ms: NDArray[np.int64], size: int) -> list[NDArray[np.intp]]:
    """Rows in blocks of `size` that follow each other in time, as those of a window do; the last may be smaller.

    Retries stand beside what they repeat: a random subset would hardly ever hold both.
    """
    order = np.argsort(event_time_ms, kind="stable")
    return [order[start : start + size] for start in range(0, len(order), size)]


def count_repetition(
    event_time_ms: NDArray[np.int64], repeats: Callable[[NDArray[np.intp]], int]
) -> tuple[Repetition, ...]:
    """How many rows repeat another in natural blocks of every size there are rows for; `repeats(rows)` says how many
    of some rows do."""
    found = []
    for size in BLOCK_SIZES:
        counts = [repeats(rows) for rows in blocks_of(event_time_ms, size) if len(rows) == size]
        if counts:
            squares = sum(count**2 for count in counts)
            found.append(Repetition(size=size, blocks=len(counts), repeated=sum(counts), squares=squares))
    return tuple(found)


def repetition_p_value(natural: Sequence[Repetition], rows: int, repeated: int) -> float:
    """P(at least `repeated` of `rows` rows repeat another) in natural traffic, never 0: a beta-binomial tail.

    Mean: the natural rate in blocks at least as large as the window, which is not below the window's own; a window
    larger than every block takes the largest's rate times the ratio of sizes, which a union of pairs cannot exceed.
    Variance: the binomial's times that of natural blocks (bursts of retries), and what so many rows leave unknown of
    the rate; where no block is uneven this is the predictive law of Jeffreys' posterior.
    """
    if repeated == 0:
        return 1.0
    block = next((b for b in natural if b.size >= rows), natural[-1])
    seen = block.blocks * block.size
    rate = (block.repeated + JEFFREYS) / (seen + 2 * JEFFREYS)
    rate = min(rate * max(1.0, (rows - 1) / (block.size - 1)), 1 - 1 / rows)
    excess = _unevenness(natural)
    # Var(R) = m r (1 - r) (1 + (m - 1) c), c = 1 / (a + b + 1), for the beta-binomial of m draws.
    c = min((excess - 1) / (rows - 1) + 1 / (seen / excess + 2 * JEFFREYS + 1), MOST_CORRELATED)
    concentration = 1 / c - 1
    tail = betabinom.logpmf(np.arange(repeated, rows + 1), rows, rate * concentration, (1 - rate) * concentration)
    return min(1.0, max(math.exp(min(float(logsumexp(tail)), 0.0)), sys.float_info.min))


def _unevenness(natural: Sequence[Repetition]) -> float:
    """Variance of a block's repetitions over a binomial's, at least 1: the largest over the sizes with enough blocks.

    By moments (Kleinman, JASA 68, 1973). Bursts are shorter than blocks, so the ratio hardly depends on the size.
    """
    enough = [block for block in natural if block.blocks >= MANY_BLOCKS] or list(natural[:1])
    return max(1.0, *(_variance_ratio(block) for block in enough))


def _variance_ratio(block: Repetition) -> float:
    mean = block.repeated / block.blocks
    binomial = mean * (1 - mean / block.size)
    if block.blocks < 2 or binomial <= 0:
        return 1.0
    return (block.squares - block.blocks * mean**2) / (block.blocks - 1) / binomial


def replay_of(rule: RepeatRule, natural: Sequence[Repetition], rows: Frame, leaders: NDArray[np.intp]) -> Replay:
    """The signal of a window: `leaders` are its rows' own, in the order they are tested in."""
    repeated = int((leaders != np.arange(len(leaders))).sum())
    groups = groups_of(leaders)[:TOP_GROUPS]
    return Replay(
        rows=repeated,
        p_value=repetition_p_value(natural, len(rows), repeated),
        groups=tuple(_group(rule, rows, group) for group in groups),
    )


def _group(rule: RepeatRule, rows: Frame, group: NDArray[np.intp]) -> Repeated:
    samples = [rows.sample_ids[i] for i in group[:TOP_LABELS]] if rows.sample_ids is not None else []
    clients = [rows.client_ids[i] for i in group] if rows.client_ids is not None else []
    distinct = list(dict.fromkeys(client for client in clients if client))[:TOP_LABELS]
    return Repeated(
        rows=len(group),
        is_exact=rule.exactly_equal(rows.take(group)),
        sample_ids=tuple(sample[:LABEL_LIMIT] for sample in samples if sample),
        client_ids=tuple(client[:LABEL_LIMIT] for client in distinct),
    )
