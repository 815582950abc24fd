"""What every broker test repeats: can there be a broker, make topics, write, read. Fixtures: `tests/conftest.py`."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported without saying so
from deploy.broker import kraft

REQUIRE = "HYDROPHONE_REQUIRE_BROKER"
"""Set to 1 where the real broker must be there: what is missing then fails the test instead of skipping it."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was read back. Of a header that occurs twice, the last one counts."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str | bytes | None]
    timestamp_ms: int


def require_kraft() -> None:
    """Skip the test, or fail it under `HYDROPHONE_REQUIRE_BROKER=1`, unless a real broker can be started here."""
    reasons = list(kraft.missing())
    if reasons and kraft.can_fetch():
        try:
            kraft.fetch_jars()
            reasons = list(kraft.missing())
        except kraft.BrokerError as error:
            reasons.append(str(error))
    if not reasons:
        return
    if os.environ.get(REQUIRE) == "1":
        pytest.fail("; ".join(reasons), pytrace=False)
    pytest.skip("; ".join(reasons))


def create_topics(
    bootstrap: str, topics: Iterable[tuple[str, int]], *, configs: Mapping[str, str] | None = None
) -> None:
    """Create `(name, partitions)` each on a real broker, and return when every partition has a leader."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = dict(topics)
    new = [NewTopic(name, partitions, 1, config=dict(configs or {})) for name, partitions in wanted.items()]
    for answer in admin.create_topics(new, operation_timeout=10, request_timeout=20).values():
        answer.result()
    deadline = time.monotonic() + 10
    while any(_led_partitions(admin, name) < count for name, count in wanted.items()):
        assert time.monotonic() < deadline, f"no leader within 10 s for {sorted(wanted)}"
        time.sleep(0.02)


def produce(
    bootstrap: str,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes | None]],
    *,
    partition: int = -1,
    headers: Mapping[str, bytes] | None = None,
    conf: Mapping[str, str | int] | None = None,
) -> None:
    """Write `(key, value)` each, placed by the key's murmur2 unless `partition` is given, and wait for all of them."""
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    settings = {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 0, **(conf or {})}
    producer = Producer(settings)
    for key, value in records:
        producer.produce(topic, value, key, partition, on_delivery=on_delivery, headers=dict(headers or {}))
        producer.poll(0)
    undelivered = producer.flush(30)
    assert not failures, failures
    assert undelivered == 0, f"{undelivered} records of `{topic}` were not delivered within 30 s"


def read_all(bootstrap: str, topic: str, isolation: str = "read_committed", *, timeout_s: float = 30.0) -> list[Record]:
    """Every record of `topic` up to its end as it is now, by partition and offset.

    Under `read_committed` the end lies before the first record of the oldest transaction still open.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "read-all",  # the client wants one; nothing is ever committed to it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
        }
    )
    try:
        records = list(_read_to_end(consumer, topic, time.monotonic() + timeout_s))
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.partition, record.offset))


def _led_partitions(admin: AdminClient, topic: str) -> int:
    found = admin.list_topics(timeout=10).topics.get(topic)
    return 0 if found is None else sum(partition.leader >= 0 for partition in found.partitions.values())


def _read_to_end(consumer: Consumer, topic: str, deadline: float) -> Iterator[Record]:
    numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    bounds = {number: _bounds(consumer, TopicPartition(topic, number), deadline) for number in numbers}
    unread = {number for number, (first, end) in bounds.items() if first < end}
    consumer.assign([TopicPartition(topic, number, bounds[number][0]) for number in unread])
    while unread:
        assert time.monotonic() < deadline, (
            f"partitions {sorted(unread)} of `{topic}` were not read to their end in time"
        )
        for message in consumer.consume(500, timeout=0.1):
            number, offset = message.partition(), message.offset()
            assert number is not None, "a consumed message has a partition"
            assert offset is not None, "a consumed message has an offset"
            if (error := message.error()) is None:
                end = bounds[number][1]
                if offset < end:
                    yield _record(message, number, offset)
                is_read = offset + 1 >= end
            elif (
                error.name() == "_PARTITION_EOF"
            ):  # the last offsets may be transaction markers, which are not delivered
                is_read = True
            else:
                raise KafkaException(error)
            if is_read:
                unread.discard(number)


NOT_YET = frozenset({"LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "_TIMED_OUT", "_UNKNOWN_PARTITION"})


def _bounds(consumer: Consumer, place: TopicPartition, deadline: float) -> tuple[int, int]:
    """First offset and end. A broker that has just started may not lead its partitions yet."""
    while True:
        try:
            return consumer.get_watermark_offsets(place, timeout=10)
        except KafkaException as error:
            if error.args[0].name() not in NOT_YET or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _record(message: Message, partition: int, offset: int) -> Record:
    headers = dict(message.headers() or {})
    return Record(partition, offset, message.key(), message.value(), headers, message.timestamp()[1])
