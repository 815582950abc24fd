"""Events as Kafka records: CloudEvents 1.0 in binary mode, as pure mappings both ways. No Kafka client lives here.

Source: CloudEvents Kafka protocol binding 1.0.2, section 3.2 (binary content mode: attributes become `ce_` headers).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

from pydantic import ValidationError

from hydrophone.schemas.errors import RecordRejected
from hydrophone.schemas.event import Event
from hydrophone.schemas.operations import DeadLetter

__all__ = [
    "DEAD_LETTER_PREFIX",
    "WireRecord",
    "dead_letter_from_headers",
    "dead_letter_headers",
    "from_record",
    "to_record",
]

SOURCE: Final = "urn:hydrophone"
DEAD_LETTER_PREFIX: Final = "hydrophone_"

E = TypeVar("E", bound=Event)
Headers = Sequence[tuple[str, bytes | None]]


class WireRecord(NamedTuple):
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def to_record(event: Event, *, key: str, time_ms: int, traceparent: str | None = None) -> WireRecord:
    """`event` as key, JSON value and headers. `time_ms` is when the described thing happened, not when it was sent."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": str(event.id),
        "ce_source": SOURCE,
        "ce_type": event.event_type,
        "ce_time": datetime.fromtimestamp(time_ms / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z"),
        "content-type": "application/json",
    }
    if traceparent:
        attributes["traceparent"] = traceparent
    headers = [(name, text.encode()) for name, text in attributes.items()]
    return WireRecord(key.encode(), event.model_dump_json().encode(), headers)


def from_record(event_class: type[E], value: bytes, headers: Headers) -> E:
    """The event in a record. Raises `RecordRejected` when it is another event, or none."""
    kind = (dict(headers).get("ce_type") or b"").decode(errors="replace")
    if kind and kind != event_class.event_type:
        raise RecordRejected("wrong_event_type", f"expected `{event_class.event_type}`; got {kind!r:.80}")
    try:
        return event_class.model_validate_json(value)
    except ValidationError as error:
        raise RecordRejected("bad_event", f"not a `{event_class.event_type}`: {error}") from None


def dead_letter_headers(letter: DeadLetter, original: Headers | None) -> list[tuple[str, bytes | None]]:
    """The original headers followed by ours; ours carry a prefix so that neither hides the other."""
    ours = [(DEAD_LETTER_PREFIX + name, str(value).encode()) for name, value in letter.model_dump().items()]
    return [*(original or ()), *ours]


def dead_letter_from_headers(headers: Headers) -> DeadLetter:
    """What `dead_letter_headers` wrote. Raises `RecordRejected` when a field is missing."""
    fields: Mapping[str, str] = {
        name.removeprefix(DEAD_LETTER_PREFIX): (value or b"").decode(errors="replace")
        for name, value in headers
        if name.startswith(DEAD_LETTER_PREFIX)
    }
    try:
        return DeadLetter.model_validate(fields)
    except ValidationError as error:
        raise RecordRejected("bad_dead_letter", str(error)) from None
