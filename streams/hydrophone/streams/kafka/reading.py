"""Which topics a processor reads, and whether they are still there. Reading them is the runtime's business."""

from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from hydrophone.schemas.errors import TopicMissing
from hydrophone.streams.ownership import Key

__all__ = ["Reads", "TopicWatch", "bounds_of", "key_of"]

EVERY_MS: Final = 5_000
TIMEOUT_S: Final = 10.0
LEADERLESS: Final = frozenset({"LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION"})
"""What is said of a partition that was just made, or whose broker just went: in a moment there is a leader."""


@dataclass(frozen=True, slots=True)
class Reads:
    """The topics to read, of as many partitions each, and whether this process does the work of either stage.

    `partials` is read once a model is sharded: most deployments have none, and their group should not know of it.
    """

    activations: str
    partials: str
    partitions: int
    windows: bool = True
    merging: bool = True

    def topics(self, *, is_sharded: bool) -> list[str]:
        merging = [self.partials] if self.merging and (is_sharded or not self.windows) else []
        return ([self.activations] if self.windows else []) + merging


def key_of(partition: TopicPartition) -> Key:
    return partition.topic, partition.partition


def _is_leaderless(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].name() in LEADERLESS


@retry(retry=retry_if_exception(_is_leaderless), wait=wait_fixed(0.1), stop=stop_after_delay(TIMEOUT_S), reraise=True)
def bounds_of(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """The first offset and the one after the last. Raises `KafkaException`."""
    low, high = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
    return low, high


class TopicWatch:
    """The client goes quiet when a topic is deleted; a broker that has just started may not know it yet."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer, self._topic = consumer, topic
        self._looked_ms = self._absences = 0

    def look(self, now_ms: int) -> None:
        """Now and then. Raises `TopicMissing` when the topic was absent twice."""
        if now_ms - self._looked_ms < EVERY_MS:
            return
        self._looked_ms = now_ms
        try:
            known = self._consumer.list_topics(self._topic, timeout=1).topics[self._topic]
        except KafkaException:
            return
        is_absent = known.error is not None and known.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
        self._absences = self._absences + 1 if is_absent else 0
        if self._absences > 1:
            raise TopicMissing(f"`{self._topic}` is gone: create it with `hydrophone topics create`")
