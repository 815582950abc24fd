"""Events as records in CloudEvents binary mode, and dead letters, there and back."""

import pytest
from tests.support.events import ALERT, DEAD_LETTER, OPERATIONAL, SCORE, TRACEPARENT
from tests.support.frames import MODEL, T0

from hydrophone.schemas.alert import Alert
from hydrophone.schemas.errors import RecordRejected
from hydrophone.schemas.event import Event
from hydrophone.schemas.headers import dead_letter_from_headers, dead_letter_headers, from_record, to_record
from hydrophone.schemas.score import WindowScore


@pytest.mark.parametrize("event", [ALERT, OPERATIONAL, SCORE], ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_its_record(event: Event) -> None:
    record = to_record(event, key=MODEL, time_ms=T0)
    assert record.key == MODEL.encode()
    assert from_record(type(event), record.value, record.headers) == event


def test_the_headers_are_cloudevents_attributes() -> None:
    headers = dict(to_record(SCORE, key=MODEL, time_ms=T0 + 7, traceparent=TRACEPARENT).headers)
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": str(SCORE.id).encode(),
        "ce_source": b"urn:hydrophone",
        "ce_type": b"org.hydrophone.score.v1",
        "ce_time": b"2023-11-14T22:13:20.007Z",
        "content-type": b"application/json",
        "traceparent": TRACEPARENT.encode(),
    }
    assert "traceparent" not in dict(to_record(SCORE, key=MODEL, time_ms=T0).headers)


def test_a_record_written_twice_has_the_same_bytes() -> None:
    assert to_record(ALERT, key=MODEL, time_ms=T0) == to_record(ALERT, key=MODEL, time_ms=T0)


def test_another_event_is_refused_by_its_type_before_it_is_read() -> None:
    record = to_record(SCORE, key=MODEL, time_ms=T0)
    with pytest.raises(RecordRejected) as caught:
        from_record(Alert, record.value, record.headers)
    assert caught.value.reason == "wrong_event_type"


@pytest.mark.parametrize("headers", [[], [("ce_type", None)], [("ce_type", b"org.hydrophone.score.v1"), ("x", None)]])
def test_headers_may_be_missing_or_null(headers: list[tuple[str, bytes | None]]) -> None:
    assert from_record(WindowScore, SCORE.model_dump_json().encode(), headers) == SCORE


@pytest.mark.parametrize("value", [b"", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"id": 1}'])
def test_a_value_that_is_no_event_is_refused(value: bytes) -> None:
    with pytest.raises(RecordRejected) as caught:
        from_record(WindowScore, value, [])
    assert caught.value.reason == "bad_event"


def test_a_dead_letter_comes_back_from_its_headers() -> None:
    original: list[tuple[str, bytes | None]] = [("ce_type", b"\xff"), ("null", None), ("reason", b"theirs")]
    headers = dead_letter_headers(DEAD_LETTER, original)
    assert headers[:3] == original
    assert dead_letter_from_headers(headers) == DEAD_LETTER
    assert dead_letter_from_headers(dead_letter_headers(DEAD_LETTER, None)) == DEAD_LETTER


def test_a_letter_that_died_twice_tells_of_its_last_death() -> None:
    later = DEAD_LETTER.model_copy(update={"reason": "key_mismatch"})
    twice = dead_letter_headers(later, dead_letter_headers(DEAD_LETTER, None))
    assert dead_letter_from_headers(twice).reason == "key_mismatch"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(name, value) for name, value in dead_letter_headers(DEAD_LETTER, None) if name != "hydrophone_offset"],
        [*dead_letter_headers(DEAD_LETTER, None), ("hydrophone_offset", None)],
        [*dead_letter_headers(DEAD_LETTER, None), ("hydrophone_offset", b"\xff")],
    ],
)
def test_headers_that_are_no_dead_letter_are_refused(headers: list[tuple[str, bytes | None]]) -> None:
    with pytest.raises(RecordRejected) as caught:
        dead_letter_from_headers(headers)
    assert caught.value.reason == "bad_dead_letter"
