"""A table that is read whole is read up to where it was when the reading began, whoever's transaction hangs on it.

A reader of committed records stops before the oldest open transaction. What others committed behind it, a model's
memory or a snapshot, would be missed: the reader waits until that transaction has ended, and says so when it does not.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer
from deploy.broker.kraft import KraftBroker
from tests.support.broker import create_topics

from hydrophone.schemas.errors import BrokerUnavailable
from hydrophone.streams.kafka.tables import TableReader

pytestmark = pytest.mark.broker


def transactional(broker: KraftBroker, name: str) -> Producer:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": name})
    producer.init_transactions(30)
    return producer


def commit(producer: Producer, topic: str, key: bytes, value: bytes) -> None:
    producer.begin_transaction()
    producer.produce(topic, value, key)
    producer.commit_transaction(30)


@contextmanager
def reader_of(broker: KraftBroker, timeout_s: float = 30) -> Iterator[TableReader]:
    reader = TableReader({"bootstrap.servers": broker.bootstrap}, timeout_s=timeout_s)
    try:
        yield reader
    finally:
        reader.close()


def test_what_was_committed_behind_a_hanging_transaction_is_read(broker: KraftBroker, topic_prefix: str) -> None:
    #   older   hangs ...   newer       behind each commit its marker, a moment later, so before or behind `hangs`
    table = f"{topic_prefix}state"
    create_topics(broker.bootstrap, [(table, 1)])
    owner, another = transactional(broker, f"{topic_prefix}owner"), transactional(broker, f"{topic_prefix}another")
    commit(owner, table, b"model", b"older")
    another.begin_transaction()
    another.produce(table, b"never", b"model")
    assert another.flush(30) == 0
    commit(owner, table, b"model", b"newer")

    with (
        reader_of(broker, 1.5) as hasty,
        pytest.raises(BrokerUnavailable, match=r"transaction .* open at offset [12],"),
    ):
        hasty.read(table, 0)
    with reader_of(broker) as reader, ThreadPoolExecutor(1) as thread:
        reading = thread.submit(reader.read, table, 0)
        with pytest.raises(TimeoutError):
            reading.result(1.5)
        another.abort_transaction(30)
        assert reading.result(30) == {b"model": b"newer"}


def test_a_table_that_ends_with_aborted_records_is_read_to_its_end(broker: KraftBroker, topic_prefix: str) -> None:
    table = f"{topic_prefix}state"
    create_topics(broker.bootstrap, [(table, 1)])
    owner = transactional(broker, f"{topic_prefix}owner")
    with reader_of(broker, 5) as reader:
        assert reader.read(table, 0) == {}
        commit(owner, table, b"model", b"kept")
        owner.begin_transaction()
        owner.produce(table, b"dropped", b"model")
        assert owner.flush(30) == 0
        owner.abort_transaction(30)
        assert reader.read(table, 0) == {b"model": b"kept"}
        assert reader.read(table, 0) == {b"model": b"kept"}, "the same reader, again"
