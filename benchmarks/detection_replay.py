"""One clean image sent ten times: no news for the distribution, and a signal of its own."""

import statistics
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from benchmarks.detection_effort import Effort, rate_detail, seeded
from benchmarks.fashion_pools import Pools
from benchmarks.harness import Measured

from hydrophone.detectors import Reference
from hydrophone.schemas.frame import Frame
from hydrophone.streams.budget import alarm_rules

__all__ = ["replay_rows"]

ROWS: Final = 100
COPIES: Final = 10
WINDOW_MS: Final = 60_000


def replay_rows(pools: Pools, reference: Reference, effort: Effort) -> Iterator[Measured]:
    """The signal is raised where the alarm rule of the default budget rings, with windows of a minute."""
    rule = alarm_rules(
        false_alarms_per_month=1.0, window_ms=WINDOW_MS, permutations=reference.manifest.permutations
    ).replay
    results = [reference.test(_window(pools.clean, index)) for index in range(effort.shift_windows)]
    rejected = [result.rejected for result in results]
    raised = [result.replay is not None and rule.fires(result.replay.p_value) for result in results]
    what = f"{COPIES} copies of one clean image in {ROWS}"
    yield Measured("replay-clean-copies", statistics.fmean(rejected), f"{rate_detail(rejected)}; {what}")
    yield Measured(
        "replay-signal", statistics.fmean(raised), f"{rate_detail(raised)}; p <= {rule.level:.1g}: one alarm in a month"
    )


def _window(pool: Frame, index: int) -> Frame:
    """Copies come as requests of their own, so all rows get identities of this window."""
    chosen = seeded(12, index).choice(len(pool), ROWS - COPIES + 1, replace=False)
    rows = pool.take(np.r_[chosen, np.repeat(chosen[:1], COPIES - 1)])
    return replace(rows, frame_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"copies {index}")), origins=None)
