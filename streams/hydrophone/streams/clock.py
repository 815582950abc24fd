"""The only place that asks the system for time; everything else is told."""

import time
from datetime import UTC, datetime

__all__ = ["monotonic_ms", "now_ms", "utc_ms"]

NS_PER_MS = 1_000_000


def now_ms() -> int:
    """UTC, milliseconds since the epoch. May jump, also backwards: for stamping, never for measuring a wait."""
    return time.time_ns() // NS_PER_MS


def monotonic_ms() -> int:
    """Milliseconds since some instant of no meaning; never goes backwards."""
    return time.monotonic_ns() // NS_PER_MS


def utc_ms(instant: datetime) -> int:
    """What a person wrote without a zone is meant in UTC: milliseconds since the epoch."""
    return int(instant.replace(tzinfo=UTC).timestamp() * 1000)
