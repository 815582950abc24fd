"""The embedded broker does what the demo needs, and its documented limits are real."""

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.support.broker import produce, read_all

from hydrophone.schemas.errors import BrokerUnavailable
from hydrophone.streams.kafka.embedded import EmbeddedBroker

SENT = [(f"key-{number % 5}".encode(), f"value-{number}".encode()) for number in range(200)]


def test_group_reads_everything_that_was_produced() -> None:
    with EmbeddedBroker({"activations": 3}) as broker:
        produce(broker.bootstrap, "activations", SENT)

        received = _consume(broker.bootstrap, "activations", len(SENT))

    assert sorted(received) == sorted(SENT)


def test_group_resumes_at_the_committed_offset_and_its_metadata() -> None:
    with EmbeddedBroker({"activations": 1}) as broker:
        produce(broker.bootstrap, "activations", SENT)
        place = TopicPartition("activations", 0, 150, "closed up to here")
        first = _consumer(broker.bootstrap)
        first.commit(offsets=[place], asynchronous=False)
        (committed,) = first.committed([TopicPartition("activations", 0)], timeout=10)
        first.close()

        received = _consume(broker.bootstrap, "activations", 50)

    assert (committed.offset, committed.metadata) == (150, "closed up to here")
    assert received == SENT[150:]


def test_key_lands_on_the_same_partition_number_of_topics_with_as_many() -> None:
    with EmbeddedBroker({"activations": 12, "state": 12}) as broker:
        places = []
        for topic in ("activations", "state"):
            produce(broker.bootstrap, topic, SENT[:5])
            places.append({record.key: record.partition for record in read_all(broker.bootstrap, topic)})

    assert places[0] == places[1]
    assert len(set(places[0].values())) > 1


def test_topic_not_declared_has_four_partitions() -> None:
    with EmbeddedBroker() as broker:
        produce(broker.bootstrap, "undeclared", SENT[:1])
        metadata = Producer({"bootstrap.servers": broker.bootstrap}).list_topics("undeclared", timeout=10)

    assert len(metadata.topics["undeclared"].partitions) == 4


def test_topic_cannot_be_created_twice_nor_before_the_start() -> None:
    broker = EmbeddedBroker()
    with pytest.raises(BrokerUnavailable, match="not started"):
        broker.create_topic("early", 1)

    with broker:
        broker.create_topic("once", 2)
        with pytest.raises(BrokerUnavailable, match="`once` cannot be created"):
            broker.create_topic("once", 2)


def test_stop_and_start_give_an_empty_broker() -> None:
    broker = EmbeddedBroker({"activations": 1})
    with broker:
        produce(broker.bootstrap, "activations", SENT)
    assert broker.bootstrap == ""

    with broker:
        assert read_all(broker.bootstrap, "activations") == []


@pytest.mark.xfail(
    reason="librdkafka's mock cluster delivers aborted records: exactly-once is judged on the real broker"
)
def test_aborted_record_is_hidden_from_a_committed_reader() -> None:
    with EmbeddedBroker({"activations": 1}) as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": "t"})
        producer.init_transactions(10)
        producer.begin_transaction()
        producer.produce("activations", b"dropped")
        producer.flush(10)
        producer.abort_transaction(10)

        assert read_all(broker.bootstrap, "activations", timeout_s=5) == []


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "readers",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )


def _consume(bootstrap: str, topic: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    consumer = _consumer(bootstrap)
    consumer.subscribe([topic])
    received: list[tuple[bytes | None, bytes | None]] = []
    for _ in range(100):
        received += [(message.key(), message.value()) for message in consumer.consume(count, timeout=0.1)]
        if len(received) >= count:
            break
    consumer.close()
    return received
