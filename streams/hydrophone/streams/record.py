"""What goes into `step`: one record as Kafka handed it over, or the news that a partition has been read to its end."""

from typing import Final, NamedTuple

__all__ = ["UNREADABLE_HEADERS", "PartitionEnd", "Record"]

UNREADABLE_HEADERS: Final = (("hydrophone_unreadable_headers", b"1"),)
"""Stands for headers whose names are no text."""


class Record(NamedTuple):
    """A Kafka record without the client that read it. `timestamp_ms` is the broker's (LogAppendTime)."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class PartitionEnd(NamedTuple):
    """Everything in the log was read and nothing came for `idle_ms`: time may pass without records."""

    partition: int
