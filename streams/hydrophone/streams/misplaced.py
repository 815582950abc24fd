"""Records under a key or on a partition where their model does not belong: what to tell of it, once each. Pure.

A model's rows on two partitions make two half windows: two publishers place the same key by different rules. A
processor that has both partitions sees it. One that has a half sees at first only that the model is not where its
key's murmur2 says, which is no fault if all publishers agree on another rule. So the memories of all partitions are
looked at: a model that has one elsewhere, of a window as late as ours, is on two.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from hydrophone.schemas.operations import ModelState, OperationalEvent, operational_event
from hydrophone.streams.effects import DeadLettered, WindowClosed
from hydrophone.streams.shards import SHARD_MARK

__all__ = ["Misplaced", "home", "murmur2"]

FIRST_PAUSE_MS: Final = 5_000
LAST_PAUSE_MS: Final = 60 * 60_000
"""Between two looks at all memories; twice as long each time that nothing is new."""


@dataclass(frozen=True, slots=True)
class _Stray:
    """A model away from its key's murmur2: on which partition, and the end of the first window seen there."""

    partition: int
    end_ms: int


class Misplaced:
    """What one processor sees of `activations`; another may see the other half, and tell of it too."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._homes: dict[str, int] = {}
        self._unplanned: set[tuple[str, int]] = set()
        self._strays: dict[str, _Stray] = {}
        self._told: set[str] = set()
        self._to_look_at: deque[int] = deque()
        self._pause_ms = self._looked_ms = 0

    def half(self, closed: WindowClosed, partitions: int) -> OperationalEvent | None:
        """A model's rows on two partitions of which this processor has both."""
        if closed.parts:
            return None
        if closed.partition != home(closed.model, partitions) and closed.model not in self._strays:
            self._strays[closed.model] = _Stray(closed.partition, closed.end_ms)
            self._pause_ms = 0  # at once
        known = self._homes.setdefault(closed.model, closed.partition)
        return None if known == closed.partition else self._event(closed.model, closed.partition, known)

    def to_look_at(self, now_ms: int, partitions: int) -> int | None:
        """Whose memories to read now, if any are to be: one partition's at a time, seldom, and only with strays."""
        if not self._strays.keys() - self._told:
            return None
        if not self._to_look_at:
            if now_ms - self._looked_ms < self._pause_ms:
                return None
            self._looked_ms = now_ms
            self._pause_ms = min(max(FIRST_PAUSE_MS, 2 * self._pause_ms), LAST_PAUSE_MS)
            self._to_look_at.extend(range(partitions))
        return self._to_look_at.popleft()

    def halves(self, number: int, memories: Mapping[str, ModelState], ours: Collection[int]) -> list[OperationalEvent]:
        """What the memories of a partition say of models that are on one of `ours`."""
        events = []
        for model, stray in self._strays.items():
            memory = memories.get(model)
            is_elsewhere = number != stray.partition and stray.partition in ours and model not in self._told
            if memory is not None and is_elsewhere and memory.last_end_ms >= stray.end_ms:
                self._told.add(model)
                events.append(self._event(model, stray.partition, number))
        return events

    def _event(self, model: str, partition: int, other: int) -> OperationalEvent:
        detail = f"model `{model}` came on partitions {other} and {partition}; use murmur2_random"
        return operational_event("model_on_two_partitions", self._topic, partition, detail, model=model)

    def forget_untold(self) -> None:
        """What was to be told may not have been committed; told twice, it is one event."""
        self._unplanned.clear()
        self._told.clear()

    def unplanned(self, refused: DeadLettered) -> OperationalEvent | None:
        """Its publishers cut windows that nobody will put together."""
        model, _, _ = (refused.record.key or b"").decode(errors="replace").partition(SHARD_MARK)
        place = (model, refused.record.partition)
        if refused.reason != "unplanned_shard" or place in self._unplanned:
            return None
        self._unplanned.add(place)
        return operational_event("unplanned_shard", self._topic, place[1], refused.detail, model=model)


def home(model: str, partitions: int) -> int:
    """Where Java's clients, aiokafka and librdkafka's `murmur2_random` place a model's records."""
    return (murmur2(model.encode()) & 0x7FFFFFFF) % max(1, partitions)


MIX: Final = 0x5BD1E995
SEED: Final = 0x9747B28C
MASK: Final = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """Kafka's 32-bit murmur2 (org.apache.kafka.common.utils.Utils), unsigned."""
    value = SEED ^ len(key)
    whole = len(key) & ~3
    for begin in range(0, whole, 4):
        word = int.from_bytes(key[begin : begin + 4], "little") * MIX & MASK
        word = (word ^ word >> 24) * MIX & MASK
        value = (value * MIX & MASK) ^ word
    if rest := key[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * MIX & MASK
    value = (value ^ value >> 13) * MIX & MASK
    return value ^ value >> 15
