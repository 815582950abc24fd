"""A hole in the log is announced, never passed over in silence; a topic that is not the same any more ends the work.

Records deleted beyond the committed offset cause one `log_gap` event that names them, and processing goes on behind
them. When the topic is deleted, the processor ends with exit code 3 and a message that names it.
"""

from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from deploy.broker.kraft import KraftBroker
from tests.support.broker import produce
from tests.support.processor import (
    await_until,
    events_of,
    frame_at,
    make_topics,
    scores_of,
    small_reference,
    start,
)
from tests.support.thorough import only_when_thorough

from hydrophone.schemas.frame import Heartbeat
from hydrophone.schemas.operations import OperationalEvent
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import ACTIVATIONS, EVENTS

pytestmark = pytest.mark.broker

MODEL = "gappy"


def test_deleted_records_are_announced_and_a_deleted_topic_ends_the_processor(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   offsets    0 1 2 | 3 4 5 6 7 | 8 9 10 11
    #              read    deleted     read again       then the topic goes
    make_topics(broker.bootstrap, topic_prefix)
    topic, admin = ACTIVATIONS.full_name(topic_prefix), AdminClient({"bootstrap.servers": broker.bootstrap})
    reference = small_reference(tmp_path, MODEL)
    first = now_ms() // 1_000 * 1_000 - 60_000
    with start(broker.bootstrap, topic_prefix, tmp_path, name="before", reference=reference) as processor:
        _window(broker, topic, first, frames=2)
        produce(broker.bootstrap, topic, [(MODEL.encode(), Heartbeat(MODEL, first + 10_000).encode())])
        await_until(lambda: len(scores_of(broker.bootstrap, topic_prefix)) == 1, "the first window was scored")
        assert processor.drain() == 0
    _window(broker, topic, first + 20_000, frames=5)
    admin.delete_records([TopicPartition(topic, 0, 8)])[TopicPartition(topic, 0)].result(10)

    with start(broker.bootstrap, topic_prefix, tmp_path, name="after", reference=reference) as processor:
        _window(broker, topic, first + 30_000, frames=3)
        produce(broker.bootstrap, topic, [(MODEL.encode(), Heartbeat(MODEL, now_ms()).encode())])
        await_until(lambda: len(scores_of(broker.bootstrap, topic_prefix)) == 2, "the window behind the gap was scored")
        (event,) = events_of(broker.bootstrap, topic_prefix, EVENTS, OperationalEvent)
        assert (event.kind, event.topic, event.partition) == ("log_gap", topic, 0)
        assert (event.first_offset, event.last_offset) == (3, 7)

        for answer in admin.delete_topics([topic]).values():
            answer.result(10)
        assert processor.wait(60) == 3
    assert f"`{topic}`" in processor.log
    assert "hydrophone topics create" in processor.log


@only_when_thorough
def test_topic_created_anew_is_not_taken_for_the_old_one(
    own_broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    make_topics(own_broker.bootstrap, topic_prefix)
    topic, admin = ACTIVATIONS.full_name(topic_prefix), AdminClient({"bootstrap.servers": own_broker.bootstrap})
    reference = small_reference(tmp_path, MODEL)
    first = now_ms() // 1_000 * 1_000 - 60_000
    with start(own_broker.bootstrap, topic_prefix, tmp_path, reference=reference) as processor:
        _window(own_broker, topic, first, frames=5)
        produce(own_broker.bootstrap, topic, [(MODEL.encode(), Heartbeat(MODEL, first + 10_000).encode())])
        await_until(lambda: len(scores_of(own_broker.bootstrap, topic_prefix)) == 1, "the first window was scored")
        for answer in admin.delete_topics([topic]).values():
            answer.result(10)
        make_topics(own_broker.bootstrap, topic_prefix)

        assert processor.wait(90) == 3
    assert f"`{topic}`" in processor.log


def _window(broker: KraftBroker, topic: str, start_ms: int, *, frames: int) -> None:
    records = [frame_at(MODEL, [start_ms + part] * 10, f"{start_ms}/{part}").encode() for part in range(frames)]
    produce(broker.bootstrap, topic, [(MODEL.encode(), record) for record in records])
