"""Records under a key or on a partition where their model does not belong: what to tell of it, once each. Pure."""

from hydrophone.schemas.operations import OperationalEvent, operational_event
from hydrophone.streams.effects import DeadLettered, WindowClosed
from hydrophone.streams.shards import SHARD_MARK

__all__ = ["Misplaced"]


class Misplaced:
    """What one processor sees of `activations`; another may see the other half, and tell of it too."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._homes: dict[str, int] = {}
        self._unplanned: set[tuple[str, int]] = set()

    def half(self, closed: WindowClosed) -> OperationalEvent | None:
        """A model's rows on two partitions make two half windows: somebody produces with another partitioner."""
        if closed.parts:
            return None
        home = self._homes.setdefault(closed.model, closed.partition)
        if home == closed.partition:
            return None
        detail = f"model `{closed.model}` came on partitions {home} and {closed.partition}; use murmur2_random"
        return operational_event("model_on_two_partitions", self._topic, closed.partition, detail, model=closed.model)

    def forget_untold(self) -> None:
        """What was to be told may not have been committed; told twice, it is one event."""
        self._unplanned.clear()

    def unplanned(self, refused: DeadLettered) -> OperationalEvent | None:
        """Its publishers cut windows that nobody will put together."""
        model, _, _ = (refused.record.key or b"").decode(errors="replace").partition(SHARD_MARK)
        place = (model, refused.record.partition)
        if refused.reason != "unplanned_shard" or place in self._unplanned:
            return None
        self._unplanned.add(place)
        return operational_event("unplanned_shard", self._topic, place[1], refused.detail, model=model)
