"""Against librdkafka's own mock cluster, and against addresses where no broker is. No test waits for a clock to run."""

import logging
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Message
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from hydrophone.schemas import Frame, Heartbeat, decode
from hydrophone.schemas.errors import SettingsError
from hydrophone.schemas.origins import Origin
from hydrophone.streams.kafka.embedded import EmbeddedBroker
from hydrophone.streams.publisher import CONTENT_TYPE, Publisher
from hydrophone.streams.shards import shard_of

NOWHERE = "127.0.0.1:1"
"""Nothing listens on port 1."""

TOPIC = "hydrophone.activations.v1"
PATIENCE_S = 30


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


def frame_of(rows: int, *, first: int = 0, model: str = "m", width: int = 4, **more: Any) -> Frame:
    layer = np.zeros((rows, width), np.float32)
    layer[:, 0] = np.arange(first, first + rows)
    return Frame(model, {"a": layer}, event_time_ms=np.array(1_700_000_000_000), **more)


def read(bootstrap: str, topic: str, enough: Callable[[list[Message]], bool]) -> list[Message]:
    """Records of a topic from its beginning, until there are enough."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": f"test-{time.time_ns()}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    records: list[Message] = []
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not enough(records):
            assert time.monotonic() < deadline, f"only {len(records)} records came"
            record = consumer.poll(0.1)
            if record is not None and record.error() is None:
                records.append(record)
    finally:
        consumer.close()
    return records


def frames_in(records: list[Message]) -> list[Frame]:
    decoded = [decode(record.value() or b"") for record in records]
    return [frame for frame in decoded if isinstance(frame, Frame)]


def rows_in(records: list[Message]) -> list[int]:
    return [int(row) for frame in frames_in(records) for row in frame.layers["a"][:, 0]]


def test_rows_arrive_once_and_in_order_joined_into_few_records(broker: EmbeddedBroker) -> None:
    with Publisher(broker.bootstrap, model="m", topic_prefix="joined.", linger_ms=60_000, batch_rows=20) as publisher:
        sent = [frame_of(5, first=first, sample_ids=[f"s{first + n}" for n in range(5)]) for first in range(0, 50, 5)]
        assert all(publisher.publish(frame) for frame in sent)
        assert publisher.close(PATIENCE_S) == 0
    records = read(broker.bootstrap, "joined.activations.v1", lambda got: len(rows_in(got)) == 50)
    assert rows_in(records) == list(range(50))
    assert [len(frame) for frame in frames_in(records)] == [20, 20, 10]
    assert [i for frame in frames_in(records) for i in frame.sample_ids or ()] == [f"s{n}" for n in range(50)]
    assert not {frame.frame_id for frame in frames_in(records)} & {frame.frame_id for frame in sent}
    stats = publisher.stats
    assert (stats.published, stats.delivered, stats.failed, stats.dropped) == (50, 50, 0, 0)
    assert (stats.published_frames, stats.delivered_frames) == (10, 3)


def test_a_record_bears_the_model_as_key_the_content_type_and_the_trace_of_the_caller(broker: EmbeddedBroker) -> None:
    span = SpanContext(trace_id=0xA1, span_id=0xB2, is_remote=False, trace_flags=TraceFlags(1))
    with Publisher(broker.bootstrap, model="team/net", topic_prefix="traced.", linger_ms=60_000) as publisher:
        with trace.use_span(NonRecordingSpan(span)):
            publisher.publish(frame_of(1, model="team/net"))
        publisher.publish(frame_of(1, model="team/net"))
    (record,) = read(broker.bootstrap, "traced.activations.v1", bool)
    assert record.key() == b"team/net"
    assert dict(record.headers() or []) == {
        "content-type": CONTENT_TYPE.encode(),
        "traceparent": f"00-{0xA1:032x}-{0xB2:016x}-01".encode(),
    }
    assert len(frames_in([record])[0]) == 2


def test_a_frame_over_the_limit_is_split_and_every_row_arrives(broker: EmbeddedBroker) -> None:
    with Publisher(broker.bootstrap, model="m", topic_prefix="split.", max_frame_bytes=50_000) as publisher:
        publisher.publish(frame_of(100, width=1000))
    records = read(broker.bootstrap, "split.activations.v1", lambda got: len(rows_in(got)) == 100)
    assert rows_in(records) == list(range(100))
    assert all(len(record) <= 50_000 for record in records)
    assert len({frame.frame_id for frame in frames_in(records)}) == len(records) == publisher.stats.delivered_frames


def test_frames_of_two_layouts_travel_apart(broker: EmbeddedBroker) -> None:
    with Publisher(broker.bootstrap, model="m", topic_prefix="layouts.", linger_ms=60_000) as publisher:
        for first in range(4):
            publisher.publish(frame_of(1, first=first, width=4 + first % 2))
    records = read(broker.bootstrap, "layouts.activations.v1", lambda got: len(rows_in(got)) == 4)
    assert rows_in(records) == [0, 2, 1, 3]


def test_a_publisher_does_not_pass_on_origins_that_claim_rows_of_others(broker: EmbeddedBroker) -> None:
    frame = frame_of(1, origins=[Origin(frame_of(1).frame_id, 0)])
    with Publisher(broker.bootstrap, model="m", topic_prefix="origins.") as publisher:
        publisher.publish(frame)
    records = read(broker.bootstrap, "origins.activations.v1", bool)
    assert frames_in(records)[0].origins is None


def test_a_quiet_publisher_sends_heartbeats(broker: EmbeddedBroker) -> None:
    with Publisher(broker.bootstrap, model="m", topic_prefix="quiet.", heartbeat_ms=10) as publisher:
        first, second = (
            decode(record.value() or b"")
            for record in read(broker.bootstrap, "quiet.activations.v1", lambda got: len(got) >= 2)[:2]
        )
    assert isinstance(first, Heartbeat)
    assert isinstance(second, Heartbeat)
    assert first.model == "m"
    assert abs(first.event_time_ms - time.time() * 1000) < PATIENCE_S * 1000
    assert first.event_time_ms <= second.event_time_ms
    assert publisher.stats.heartbeats >= 2
    assert publisher.stats.published == publisher.stats.delivered == 0


def test_a_heavy_models_frames_are_spread_by_their_ids_and_those_before_the_plan_are_not(
    broker: EmbeddedBroker,
) -> None:
    # frame_of stands at 1_700_000_000_000
    prefix = "spread."
    with Publisher(broker.bootstrap, model="m", topic_prefix=prefix, batch_rows=1, heartbeat_ms=None) as publisher:
        publisher.reshard(4, from_ms=1_700_000_000_001)
        assert publisher.publish(frame_of(1))
        read(broker.bootstrap, f"{prefix}activations.v1", lambda got: len(got) >= 1)
        publisher.reshard(4, from_ms=1_700_000_000_000)
        assert all(publisher.publish(frame_of(1, first=row)) for row in range(1, 21))
    records = read(broker.bootstrap, f"{prefix}activations.v1", lambda got: len(got) >= 21)
    by_row = {row: record for record in records for row in rows_in([record])}
    assert by_row.pop(0).key() == b"m"
    for record in by_row.values():
        (frame,) = frames_in([record])
        assert record.key() == f"m#{shard_of(frame.frame_id, 4)}".encode()
    assert len({record.key() for record in by_row.values()}) > 1


def test_heartbeats_of_a_heavy_model_go_to_every_shard(broker: EmbeddedBroker) -> None:
    with Publisher(broker.bootstrap, model="m", topic_prefix="beats.", heartbeat_ms=10, shards=2):
        keys = {b"m", b"m#0", b"m#1"}
        read(broker.bootstrap, "beats.activations.v1", lambda got: {record.key() for record in got} == keys)


@pytest.mark.parametrize(("shards", "from_ms"), [(0, 0), (2_000, 0), (4, -1)])
def test_impossible_plans_are_refused(broker: EmbeddedBroker, shards: int, from_ms: int) -> None:
    with pytest.raises(SettingsError, match="no plan of shards"):
        Publisher(broker.bootstrap, model="m", shards=shards, shards_from_ms=from_ms)


def test_rows_are_those_of_the_moment_of_publishing(broker: EmbeddedBroker) -> None:
    layer = np.zeros((2, 4), np.float32)
    with Publisher(broker.bootstrap, model="m", topic_prefix="owned.", linger_ms=60_000) as publisher:
        publisher.publish(Frame("m", {"a": layer}, event_time_ms=np.array(1)))
        layer[:] = 7
    assert rows_in(read(broker.bootstrap, "owned.activations.v1", bool)) == [0, 0]


def test_with_the_broker_away_it_answers_fills_up_refuses_and_closes_with_a_count() -> None:
    publisher = Publisher(NOWHERE, model="m", queue_rows=100, batch_rows=1_000_000, linger_ms=3_600_000)
    begun = time.monotonic()
    answers = [publisher.publish(frame_of(10)) for _ in range(50)]
    assert time.monotonic() - begun < 5, "publish must not wait for a broker"
    assert answers == [True] * 10 + [False] * 40
    assert publisher.close(0.05) == 100
    assert publisher.close() == 100
    stats = publisher.stats
    assert (stats.published, stats.dropped, stats.delivered, stats.failed) == (100, 400, 0, 100)
    assert (stats.published_frames, stats.dropped_frames) == (10, 40)
    assert not publisher.publish(frame_of(1)), "a closed publisher refuses"


def test_a_full_librdkafka_queue_costs_rows_a_count_and_the_caller_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hydrophone.streams.publisher.FULL_WAIT_MS", 10)
    publisher = Publisher(
        NOWHERE, model="m", linger_ms=0, batch_rows=1, kafka={"queue.buffering.max.messages": 2}, heartbeat_ms=None
    )
    assert all(publisher.publish(frame_of(1)) for _ in range(5))
    assert publisher.close(0.2) == 5
    assert publisher.stats.failed == 5
    assert "queue is full" in caplog.text


def test_what_the_broker_does_not_take_in_time_is_counted_as_failed(caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(NOWHERE, model="m", delivery_timeout_ms=50, linger_ms=0, kafka={"linger.ms": 0}) as publisher:
        publisher.publish(frame_of(3))
        assert publisher.close(PATIENCE_S) == 3
    assert (publisher.stats.failed, publisher.stats.failed_frames) == (3, 1)
    assert "3 rows are lost" in caplog.text


def test_another_model_and_what_is_no_frame_are_dropped_and_counted() -> None:
    publisher = Publisher(NOWHERE, model="m")
    assert not publisher.publish(frame_of(2, model="other"))
    assert not publisher.publish(None)  # type: ignore[arg-type]
    assert publisher.close(0) == 0
    assert (publisher.stats.dropped, publisher.stats.dropped_frames) == (2, 2)


def test_one_offer_that_cannot_be_built_does_not_take_the_others_along(broker: EmbeddedBroker) -> None:
    def broken() -> Frame:
        raise RuntimeError("no frame today")

    with Publisher(broker.bootstrap, model="m", topic_prefix="offers.", linger_ms=60_000) as publisher:
        assert publisher.offer(7, broken)
        assert publisher.offer(2, lambda: frame_of(1))
        assert publisher.offer(1, lambda: frame_of(1, model="other"))
        assert publisher.offer(3, lambda: frame_of(3))
        assert publisher.close(PATIENCE_S) == 10
    assert (publisher.stats.delivered, publisher.stats.failed) == (3, 10)


def test_a_row_over_the_limit_is_lost_alone(broker: EmbeddedBroker) -> None:
    with Publisher(broker.bootstrap, model="m", topic_prefix="wide.", max_frame_bytes=10_000) as publisher:
        publisher.publish(frame_of(2, width=5_000))
        publisher.publish(frame_of(1))
        assert publisher.close(PATIENCE_S) == 2
    assert (publisher.stats.delivered, publisher.stats.failed) == (1, 2)


def test_the_frame_is_built_on_another_thread_than_the_callers() -> None:
    built = Event()

    def build() -> Frame:
        built.set()
        return frame_of(1)

    publisher = Publisher(NOWHERE, model="m", linger_ms=0)
    assert publisher.offer(1, build)
    assert built.wait(PATIENCE_S)
    publisher.close(0)


def test_librdkafka_speaks_through_our_logger_and_not_into_the_services_own_output(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    publisher = Publisher(NOWHERE, model="m", linger_ms=0, heartbeat_ms=None)
    publisher.publish(frame_of(1))
    deadline = time.monotonic() + PATIENCE_S
    while "Connect" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    publisher.close(0)
    assert "Connect" in caplog.text
    assert {record.name for record in caplog.records} == {"hydrophone"}
    assert all(record.levelno >= logging.WARNING for record in caplog.records)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "no spaces"},
        {"model": "m", "queue_rows": 0},
        {"model": "m", "no_such_property": 1},
        {"model": "m", "kafka": {"linger.ms": "soon"}},
    ],
)
def test_a_wrong_setting_is_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Publisher(NOWHERE, **settings)


def test_kafka_properties_are_taken_in_both_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def refuse(properties: dict[str, Any]) -> None:
        seen.update(properties)
        raise ValueError("seen enough")

    monkeypatch.setattr("hydrophone.streams.publisher.Producer", refuse)
    with pytest.raises(SettingsError):
        Publisher(
            NOWHERE, model="m", security_protocol="SASL_SSL", acks="1", kafka={"sasl.mechanism": "PLAIN", "acks": "all"}
        )
    assert seen["security.protocol"] == "SASL_SSL"
    assert seen["sasl.mechanism"] == "PLAIN"
    assert seen["acks"] == "all"
    assert seen["bootstrap.servers"] == NOWHERE
    assert seen["partitioner"] == "murmur2_random"
    assert seen["enable.idempotence"] is True


def test_after_a_fork_it_refuses_instead_of_filling_a_queue_nobody_empties(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(NOWHERE, model="m")
    with monkeypatch.context() as child:
        child.setattr("os.getpid", lambda: -1)
        assert not publisher.publish(frame_of(1))
    assert "build it in the worker process" in caplog.text
    assert publisher.close(0) == 0
