"""The only place that asks the system for time; everything else is told."""

import time

__all__ = ["monotonic_ms", "now_ms"]

NS_PER_MS = 1_000_000


def now_ms() -> int:
    """UTC, milliseconds since the epoch. May jump, also backwards: for stamping, never for measuring a wait."""
    return time.time_ns() // NS_PER_MS


def monotonic_ms() -> int:
    """Milliseconds since some instant of no meaning; never goes backwards."""
    return time.monotonic_ns() // NS_PER_MS
