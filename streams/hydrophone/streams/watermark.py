"""When time has passed on a partition: W = the latest event time seen − lateness. Pure arithmetic.

A row is late when its window's end is at or before W. Dates in the future are judged against the record's own Kafka
timestamp, never against now, so that a replay decides alike.
"""

from dataclasses import dataclass

from hydrophone.schemas.errors import SettingsError

__all__ = ["TimeRules"]


@dataclass(frozen=True, slots=True)
class TimeRules:
    """All in milliseconds. Raises `SettingsError` when one skewed publisher could make its neighbours late."""

    window_ms: int = 60_000
    lateness_ms: int = 10_000
    future_skew_ms: int = 5_000
    expected_delay_ms: int = 2_000
    idle_ms: int = 5_000

    def __post_init__(self) -> None:
        faults = [
            f"`{name}` must not be negative; got {getattr(self, name)} ms"
            for name in ("lateness_ms", "future_skew_ms", "expected_delay_ms", "idle_ms")
            if getattr(self, name) < 0
        ]
        if self.window_ms < 1:
            faults.append(f"`window_ms` must be at least 1; got {self.window_ms}")
        if self.lateness_ms < self.future_skew_ms + self.expected_delay_ms:
            faults.append(
                f"`lateness_ms` must be at least `future_skew_ms` + `expected_delay_ms` = "
                f"{self.future_skew_ms + self.expected_delay_ms}, or one publisher whose clock runs ahead makes its "
                f"neighbours late; got {self.lateness_ms}"
            )
        if faults:
            raise SettingsError("; ".join(faults))

    def after(self, watermark_ms: int | None, event_time_ms: int) -> int:
        """The watermark once a row of this time was seen; it never falls."""
        candidate = event_time_ms - self.lateness_ms
        return candidate if watermark_ms is None else max(watermark_ms, candidate)

    def when_idle(self, watermark_ms: int | None, now_ms: int) -> int | None:
        """The watermark of a partition read to its end and silent for `idle_ms`; without any record there is none."""
        return None if watermark_ms is None else max(watermark_ms, now_ms - self.idle_ms - self.lateness_ms)

    def latest_credible(self, timestamp_ms: int) -> int:
        """The latest event time a record with this Kafka timestamp can have."""
        return timestamp_ms + self.future_skew_ms
