"""Heavy models: which keys their frames travel under, and from when their windows are merged. Pure.

                       first plan              another plan
    frames      model      │  model#0 ... model#3   │  model#0, model#1
    windows     one stage  │  merged                │  merged                  by their start alone

A plan that follows changes nothing but the keys: a merged window takes what came under any key, the plain one too.
"""

import zlib
from collections.abc import Iterable, Iterator

from hydrophone.schemas.operations import ShardPlan
from hydrophone.streams.watermark import TimeRules

__all__ = ["SHARD_MARK", "ShardPlans", "first_instant", "shard_of"]

SHARD_MARK = "#"
"""Between a model and the number of its shard; no model's name has it."""


def shard_of(frame_id: str, shards: int) -> int:
    """The same frame always comes under the same key: that is how its duplicates meet."""
    return zlib.crc32(frame_id.encode()) % shards


def first_instant(now_ms: int, time: TimeRules) -> int:
    """The earliest start of a window that no row can be in yet, nor before every processor has read of the plan."""
    earliest = now_ms + time.window_ms + time.lateness_ms
    return earliest + -earliest % time.window_ms


class ShardPlans:
    """Every plan announced. A model's first plan decides which of its windows are merged; false without any plan."""

    def __init__(self, plans: Iterable[ShardPlan] = ()) -> None:
        self._plans: dict[str, dict[int, int]] = {}
        self._first_ms: dict[str, int] = {}
        for plan in plans:
            self.announce(plan)

    def announce(self, plan: ShardPlan) -> None:
        """Of two plans for one instant the later announcement counts."""
        self._plans.setdefault(plan.model, {})[plan.effective_from_ms] = plan.shards
        self._first_ms[plan.model] = min(self._plans[plan.model])

    def is_merged(self, model: str, window_start_ms: int) -> bool:
        first = self._first_ms.get(model)
        return first is not None and window_start_ms >= first

    def key(self, model: str, frame_id: str, earliest_ms: int) -> str:
        """The key of a frame whose earliest row is of this time. Plain where a row may be of an unmerged window."""
        plans = self._plans.get(model, {})
        begun = [start for start in plans if start <= earliest_ms]
        shards = plans[max(begun)] if begun else 1
        return f"{model}{SHARD_MARK}{shard_of(frame_id, shards)}" if shards > 1 else model

    def keys(self, model: str, now_ms: int) -> list[str]:
        """Every key that frames of now may have."""
        begun = [start for start in self._plans.get(model, {}) if start <= now_ms]
        shards = self._plans[model][max(begun)] if begun else 1
        return [model] + [f"{model}{SHARD_MARK}{shard}" for shard in range(shards) if shards > 1]

    def __bool__(self) -> bool:
        return bool(self._plans)

    def __iter__(self) -> Iterator[ShardPlan]:
        for model, plans in sorted(self._plans.items()):
            for start, shards in sorted(plans.items()):
                yield ShardPlan(model=model, shards=shards, effective_from_ms=start)
