"""W = the latest event time seen − lateness; rules that would make neighbours late are refused."""

import pytest

from hydrophone.schemas.errors import SettingsError
from hydrophone.streams.watermark import TimeRules

RULES = TimeRules(window_ms=60, lateness_ms=10, future_skew_ms=5, expected_delay_ms=5, idle_ms=20)


def test_watermark_trails_the_latest_event_and_does_not_regress() -> None:
    assert RULES.after(None, 100) == 90
    assert RULES.after(90, 130) == 120
    assert RULES.after(120, 100) == 120


def test_watermark_does_not_regress_when_a_partition_goes_idle() -> None:
    #   now 1000, idle for 20, lateness 10: nothing older than 970 can still come
    assert RULES.when_idle(90, 1_000) == 970
    assert RULES.when_idle(980, 1_000) == 980


def test_partition_that_never_had_a_record_has_no_watermark() -> None:
    assert RULES.when_idle(None, 1_000) is None


def test_future_is_judged_against_the_records_own_time() -> None:
    assert RULES.latest_credible(1_000) == 1_005


def test_lateness_below_skew_and_delay_is_refused_with_the_sum() -> None:
    with pytest.raises(SettingsError, match=r"`lateness_ms` must be at least .* = 10, .*; got 9"):
        TimeRules(window_ms=60, lateness_ms=9, future_skew_ms=5, expected_delay_ms=5)


def test_all_faults_are_told_together() -> None:
    with pytest.raises(SettingsError) as caught:
        TimeRules(window_ms=0, lateness_ms=-1, future_skew_ms=-2, idle_ms=-3)

    for name in ("window_ms", "lateness_ms", "future_skew_ms", "idle_ms"):
        assert f"`{name}`" in str(caught.value)
