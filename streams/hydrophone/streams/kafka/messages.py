"""What the client hands over, in our types."""

from confluent_kafka import Message

from hydrophone.streams.record import UNREADABLE_HEADERS

__all__ = ["headers_of"]


def headers_of(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """Headers in order; one name may come twice, and a value may be null.

    A name that is not UTF-8, which any client may send, makes the Python client fail in C.
    """
    try:
        headers = message.headers()
    except (SystemError, UnicodeDecodeError):
        return UNREADABLE_HEADERS
    if not headers:
        return ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return tuple((str(name), value.encode() if isinstance(value, str) else value) for name, value in pairs)
