import logging

import pytest

from hydrophone.streams import bounded_log
from hydrophone.streams.bounded_log import BoundedLog


def test_a_kind_is_said_once_an_interval_and_then_says_how_often_it_was_not(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0
    monkeypatch.setattr(bounded_log, "monotonic_ms", lambda: now)
    log = BoundedLog(logging.getLogger("hydrophone"), every_ms=100)
    for now in (0, 50, 99, 100):
        log.say("lost", "%d rows are lost", now)
    log.log(logging.ERROR, "[%s] %s", "FAIL", "refused")
    assert [record.getMessage() for record in caplog.records] == [
        "0 rows are lost",
        "100 rows are lost (2 more of its kind were left out)",
        "[FAIL] refused",
    ]
