"""The bounded queue between an inference service's threads and the publisher's own. Drops, never blocks.

What is waiting, and where it goes, is the publisher's business.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition

from hydrophone.schemas.frame import Frame

__all__ = ["Outbox", "Waiting"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame not yet built, and the W3C trace context of whoever handed it over."""

    rows: int
    build: Callable[[], Frame]
    traceparent: str | None


class Outbox:
    """First in, first out, bounded in rows; rows that are being sent no longer count."""

    def __init__(self, *, limit_rows: int, batch_rows: int) -> None:
        self._limit_rows = limit_rows
        self._batch_rows = batch_rows
        self._changed = Condition()
        self._waiting: deque[Waiting] = deque()
        self._rows = 0
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def put(self, waiting: Waiting) -> bool:
        """False when there is no room or the outbox is closed. Holds the lock for a few instructions only."""
        with self._changed:
            rows = self._rows + waiting.rows
            if self._is_closed or rows > self._limit_rows:
                return False
            self._waiting.append(waiting)
            # A wake-up for every frame would cost the caller more than the rest of this method.
            if self._rows == 0 or self._rows < self._batch_rows <= rows:
                self._changed.notify()
            self._rows = rows
            return True

    def take(self, *, idle_ms: int, linger_ms: int) -> list[Waiting]:
        """Up to `batch_rows` rows, or one larger frame; nothing if nothing came within `idle_ms`.

        Once there is something, waits up to `linger_ms` for more. A closed outbox no longer waits.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed, idle_ms / 1000)
            if self._waiting:
                self._changed.wait_for(lambda: self._rows >= self._batch_rows or self._is_closed, linger_ms / 1000)
            return self._pop()

    def close(self) -> None:
        """Take nothing more in; what is waiting can still be taken out."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _pop(self) -> list[Waiting]:
        taken: list[Waiting] = []
        rows = 0
        while self._waiting and (not taken or rows + self._waiting[0].rows <= self._batch_rows):
            taken.append(self._waiting.popleft())
            rows += taken[-1].rows
        self._rows -= rows
        return taken
