"""Says a thing that keeps happening once in a while. What deserves saying is decided where it happens."""

import logging
from threading import Lock

from hydrophone.streams.clock import monotonic_ms

__all__ = ["BoundedLog"]


class BoundedLog:
    """At most one record per kind and interval, with the number of those left out.

    `kind` must be one of a few: each is remembered.
    """

    def __init__(self, logger: logging.Logger, *, every_ms: int = 10_000) -> None:
        self._logger = logger
        self._every_ms = every_ms
        self._lock = Lock()
        self._said_ms: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def say(self, kind: str, message: str, *args: object) -> None:
        """As a warning."""
        self._record(logging.WARNING, kind, message, args)

    def log(self, level: int, message: str, *args: object) -> None:
        """The face librdkafka's client expects of a logger: the first argument names the facility."""
        self._record(level, f"librdkafka {args[0] if args else ''}", message, args)

    def _record(self, level: int, kind: str, message: str, args: tuple[object, ...]) -> None:
        now = monotonic_ms()
        with self._lock:
            if now - self._said_ms.get(kind, now - self._every_ms) < self._every_ms:
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return
            self._said_ms[kind] = now
            left_out = self._left_out.pop(kind, 0)
        if left_out:
            message, args = f"{message} (%d more of its kind were left out)", (*args, left_out)
        self._logger.log(level, message, *args)
