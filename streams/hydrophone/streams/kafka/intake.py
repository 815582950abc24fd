"""Messages as the group hands them to us, in their order, and what was read and not handled yet.

What they mean, and when to hold, is the runtime's business.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from confluent_kafka import Consumer, Message, TopicPartition

__all__ = ["Intake"]


class Intake:
    """A group member must poll, or its partitions go to another; held, it polls and is given nothing.

    Pausing makes the client throw away what it fetched ahead, so it is done when nothing more can be taken for a while,
    not for every full queue.
    """

    def __init__(self, consumer: Consumer, *, batch: int) -> None:
        self._consumer, self._batch = consumer, batch
        self._backlog: deque[Message] = deque()
        self._is_held = False

    def __bool__(self) -> bool:
        """Something was read and not handled."""
        return bool(self._backlog)

    @property
    def is_idle(self) -> bool:
        """Nothing is kept back: what was handled is all there is so far."""
        return not self._is_held and not self._backlog

    def poll(self, wait_ms: int) -> None:
        """Serve the group, and put what came behind what is there. Rebalance callbacks run in here."""
        came = self._consumer.consume(self._batch, timeout=wait_ms / 1000)
        self._backlog.extend(came)  # not in one expression: `drop` may have put another backlog in place meanwhile

    def next(self) -> Message:
        return self._backlog.popleft()

    def hold(self, partitions: Sequence[TopicPartition]) -> None:
        """Take nothing in from these partitions, which are all that are being read."""
        if not self._is_held:
            self._is_held = True
            self._consumer.pause(list(partitions))

    def release(self, partitions: Sequence[TopicPartition]) -> None:
        if self._is_held:
            self._is_held = False
            self._consumer.resume(list(partitions))

    def keep_held(self, partitions: Sequence[TopicPartition]) -> None:
        """Partitions that have just come do as the others do."""
        if self._is_held:
            self._consumer.pause(list(partitions))

    def read_from(self, place: TopicPartition, *, now: bool = False) -> None:
        """Go on from another offset; `now`: whatever is held."""
        if now or not self._is_held:
            self._consumer.resume([place])
        self._consumer.seek(place)

    def clear(self) -> None:
        """What was read comes again."""
        self._backlog.clear()

    def start_anew(self) -> None:
        """Nothing is held or waiting; partitions are set by `read_from`."""
        self._backlog.clear()
        self._is_held = False

    def drop(self, keys: Iterable[tuple[str, int]]) -> None:
        """Of these partitions nothing that was read is wanted: they are no longer ours, or are read again."""
        gone = set(keys)
        self._backlog = deque(m for m in self._backlog if (m.topic(), m.partition()) not in gone)
