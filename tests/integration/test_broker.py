"""The real broker keeps the promises that every exactly-once test leans on.

What a transaction committed is read, what it aborted is not, by a `read_committed` reader. A restart on the same
folder keeps both the records and the address. A broker that is killed or stopped leaves no process behind, and one
whose parent was killed leaves neither process nor folder.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from deploy.broker import kraft
from deploy.broker.kraft import KraftBroker
from tests.support.broker import create_topics, produce, read_all, require_kraft

pytestmark = pytest.mark.broker


def test_committed_transaction_is_read_and_aborted_one_is_not(broker: KraftBroker, topic_prefix: str) -> None:
    #   offset     0            1        2          3        4
    #            kept   commit marker  dropped  abort marker
    topic = f"{topic_prefix}transactions"
    create_topics(broker.bootstrap, [(topic, 1)])
    producer = _transactional(broker, topic_prefix)

    producer.begin_transaction()
    producer.produce(topic, b"kept")
    producer.commit_transaction(30)
    producer.begin_transaction()
    producer.produce(topic, b"dropped")
    producer.flush(30)
    producer.abort_transaction(30)

    assert [record.value for record in read_all(broker.bootstrap, topic)] == [b"kept"]
    assert [record.value for record in read_all(broker.bootstrap, topic, "read_uncommitted")] == [b"kept", b"dropped"]


def test_open_transaction_ends_what_a_committed_reader_may_see(broker: KraftBroker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}open"
    create_topics(broker.bootstrap, [(topic, 1)])
    produce(broker.bootstrap, topic, [(None, b"before")])
    producer = _transactional(broker, topic_prefix)
    producer.begin_transaction()
    producer.produce(topic, b"pending")
    producer.flush(30)
    produce(broker.bootstrap, topic, [(None, b"after")])

    assert [record.value for record in read_all(broker.bootstrap, topic)] == [b"before"]
    producer.abort_transaction(30)
    assert [record.value for record in read_all(broker.bootstrap, topic)] == [b"before", b"after"]


def test_second_producer_of_a_transactional_id_fences_the_first(broker: KraftBroker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}fenced"
    create_topics(broker.bootstrap, [(topic, 1)])
    first = _transactional(broker, topic_prefix)
    first.begin_transaction()
    first.produce(topic, b"zombie")
    first.flush(30)

    second = _transactional(broker, topic_prefix)
    second.begin_transaction()
    second.produce(topic, b"successor")
    second.commit_transaction(30)

    with pytest.raises(KafkaException, match=r"(?i)fenced|epoch"):
        first.commit_transaction(30)
    assert [record.value for record in read_all(broker.bootstrap, topic)] == [b"successor"]


@pytest.mark.parametrize("end", [KraftBroker.stop, KraftBroker.kill], ids=["stopped", "killed"])
def test_restart_keeps_address_and_records(end: Callable[[KraftBroker], None], tmp_path: Path) -> None:
    require_kraft()
    with KraftBroker(directory=tmp_path) as broker:
        create_topics(broker.bootstrap, [("kept", 2)])
        produce(broker.bootstrap, "kept", [(b"a", b"1"), (b"b", b"2")])
        address, before = broker.bootstrap, read_all(broker.bootstrap, "kept")

        end(broker)
        broker.restart()

        assert broker.bootstrap == address
        assert read_all(address, "kept") == before
        assert len(before) == 2


def test_killed_broker_leaves_no_process_and_stop_removes_its_folder(own_broker: KraftBroker) -> None:
    pid = own_broker.pid

    own_broker.kill()

    assert not _is_alive(pid)
    assert not own_broker.is_running
    assert own_broker.log_path.exists()
    own_broker.stop()
    assert not own_broker.directory.exists()


def test_suspended_broker_does_not_answer_until_resumed(own_broker: KraftBroker) -> None:
    topic = "frozen"
    create_topics(own_broker.bootstrap, [(topic, 1)])
    producer = Producer({"bootstrap.servers": own_broker.bootstrap})

    own_broker.suspend()
    producer.produce(topic, b"patient")
    assert producer.flush(1) == 1

    own_broker.resume()
    assert producer.flush(30) == 0
    assert [record.value for record in read_all(own_broker.bootstrap, topic)] == [b"patient"]


def test_broker_of_a_killed_parent_leaves_neither_process_nor_folder() -> None:
    require_kraft()
    program = (
        "from deploy.broker.kraft import KraftBroker; import time; broker = KraftBroker(); broker.start(); "
        "print(broker.pid, broker.directory, flush=True); time.sleep(600)"
    )
    root = Path(kraft.__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None, "stdout was asked for as a pipe"
        pid, directory = parent.stdout.readline().split()
        assert _is_alive(int(pid))

        os.kill(parent.pid, signal.SIGKILL)

    _await(lambda: not _is_alive(int(pid)) and not Path(directory).exists())


def _transactional(broker: KraftBroker, name: str) -> Producer:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": name})
    producer.init_transactions(30)
    return producer


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _await(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout_s:g} s"
        time.sleep(0.02)
