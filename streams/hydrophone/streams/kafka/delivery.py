"""Outputs and offsets to the broker, all or nothing. What to send and where to go on from is decided elsewhere.

Two guarantees with one face. `ExactlyOnce`: outputs and offsets in one transaction. `AtLeastOnce`, for brokers without
transactions: outputs first, then offsets; a crash in between repeats outputs, with the same ids and contents.
"""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from hydrophone.schemas.errors import BrokerUnavailable, ConfigurationError, Fenced, Retryable
from hydrophone.streams.failpoints import reach
from hydrophone.streams.kafka.admin import unwritable_topics
from hydrophone.streams.kafka.clients import Properties, producer
from hydrophone.streams.kafka.trouble import DENIED, denied
from hydrophone.streams.outputs import Output

__all__ = ["AtLeastOnce", "Delivery", "DeliveryFailed", "ExactlyOnce", "send"]

log = logging.getLogger("hydrophone")

TIMEOUT_S: Final = 30.0
HANG_S: Final = 120.0
PERMANENT: Final = frozenset(
    {
        "MSG_SIZE_TOO_LARGE",
        "INVALID_RECORD",
        "POLICY_VIOLATION",
    }
)
"""What the broker will answer again, however often it is asked; so is what it denies."""

FENCED: Final = frozenset({"_FENCED", "PRODUCER_FENCED"})
"""Somebody else has the transactional id now: what the client found, and what the broker said."""

BROKER_EXIT_CODE: Final = 4
ANY_PARTITION: Final = -1
"""librdkafka's word for: let the partitioner choose."""


class DeliveryFailed(Retryable):
    """Nothing of this batch is committed, or it cannot be known: rebuild from what the broker says is committed."""


class Delivery(Protocol):
    """Delivers a batch. After `DeliveryFailed` the caller must forget its state and recover it from the broker."""

    def deliver(self, outputs: Sequence[Output], offsets: Sequence[TopicPartition], consumer: Consumer) -> None: ...

    def close(self) -> None: ...


class ExactlyOnce:
    """One transaction a batch. After an end that cannot be known the producer is rebuilt: its `init_transactions`
    settles the old transaction first (librdkafka does not implement KIP-890, so a late EndTxn could otherwise hit the
    next one).

    `is_named`: the id is one that another process may take over. One that nobody else can have is fenced by the broker
    alone, when a transaction ran out because this process or the broker stood still: then it is rebuilt like any other.
    """

    def __init__(self, kafka: Properties, transactional_id: str, *, is_named: bool = True) -> None:
        self._kafka, self._id, self._is_named = kafka, transactional_id, is_named
        self._refused: list[tuple[KafkaError, str]] = []
        self._producer = self._fresh()

    def _fresh(self) -> Producer:
        made = producer(self._kafka, transactional_id=self._id)
        try:
            made.init_transactions(TIMEOUT_S)
        except KafkaException as error:
            raise _named(error.args[0], self._id) from error
        return made

    def deliver(self, outputs: Sequence[Output], offsets: Sequence[TopicPartition], consumer: Consumer) -> None:
        """Raises `DeliveryFailed`, or `Fenced` when another process took this transactional id over."""
        self._refused.clear()
        reach("before-commit")
        try:
            self._producer.begin_transaction()
            for output in outputs:
                _produce(self._producer, output, self._report)
            if offsets:
                metadata = consumer.consumer_group_metadata()
                with _deadline():
                    self._producer.send_offsets_to_transaction(list(offsets), metadata, TIMEOUT_S)
            reach("after-produce")
            self._producer.commit_transaction(TIMEOUT_S)
            reach("after-commit")
        except KafkaException as error:
            self._give_up(error.args[0], outputs)
        except BufferError as error:
            self._abort()
            raise DeliveryFailed(f"the producer's queue is full: {error}") from error

    def _give_up(self, error: KafkaError, outputs: Sequence[Output]) -> None:
        if error.name() in FENCED and self._is_named:
            raise Fenced(
                f"transactional id `{self._id}` is in use by another process, or ran out while this one stood still: "
                f"{error.str()}"
            )
        if error.txn_requires_abort():
            self._abort()
        else:
            self._rebuild()
        _refuse_for_good(self._refused)
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:  # it does not say which
            topics = {output.topic for output in outputs}
            raise denied(error, "`, `".join(unwritable_topics(self._kafka, topics) or sorted(topics)))
        _refuse_for_good([(error, self._id)])
        raise DeliveryFailed(f"{error.str()}{''.join(f'; `{t}`: {e.str()}' for e, t in self._refused[:1])}")

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refused.append((error, message.topic() or ""))

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(TIMEOUT_S)
        except KafkaException:
            self._rebuild()

    def _rebuild(self) -> None:
        self._producer = self._fresh()

    def close(self) -> None:
        with suppress(KafkaException):  # a fenced producer has nothing to flush, and what ended us is to be heard
            self._producer.flush(0)


def _refuse_for_good(refused: Sequence[tuple[KafkaError, str]]) -> None:
    """Raise `ConfigurationError` where trying again cannot help. librdkafka purges what it had not sent when a
    transaction aborts: the first refusal with a cause of its own is the reason."""
    for error, what in refused:
        if error.name() in DENIED:
            raise denied(error, what)
        if error.name() in PERMANENT:
            raise ConfigurationError(f"`{what}` refuses an output: {error.str()}; run `hydrophone doctor`")


@contextmanager
def _deadline() -> Iterator[None]:
    """librdkafka may not keep the time limit of this one call (its issue 5456). Nothing is committed then; a process
    that hangs holds its partitions, one that ends hands them on."""
    timer = threading.Timer(HANG_S, _end_process)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_process() -> None:
    log.critical("the broker client has not answered for %.0f s: this process ends, nothing is lost", HANG_S)
    os._exit(BROKER_EXIT_CODE)


class AtLeastOnce:
    def __init__(self, kafka: Properties) -> None:
        self._producer = producer(kafka, transactional_id=None)
        self._failed: list[tuple[KafkaError, str]] = []

    def deliver(self, outputs: Sequence[Output], offsets: Sequence[TopicPartition], consumer: Consumer) -> None:
        """Raises `DeliveryFailed`; then some outputs may have been delivered, and will be again."""
        reach("before-commit")
        try:
            self._send([output for output in outputs if not output.is_memory])
            self._send([output for output in outputs if output.is_memory])  # or a crash could leave an alert untold
            reach("after-produce")
            if offsets:
                for place in consumer.commit(offsets=list(offsets), asynchronous=False) or ():
                    if place.error is not None:
                        raise DeliveryFailed(f"`{place.topic}` [{place.partition}]: {place.error.str()}")
            reach("after-commit")
        except (KafkaException, BufferError) as error:
            raise DeliveryFailed(str(error)) from error

    def _send(self, outputs: Sequence[Output]) -> None:
        """Returns when all were acknowledged."""
        self._failed.clear()
        for output in outputs:
            _produce(self._producer, output, self._report)
        left = self._producer.flush(TIMEOUT_S)
        _refuse_for_good(self._failed)
        if left or self._failed:
            reason = self._failed[0][0].str() if self._failed else "time ran out"
            raise DeliveryFailed(f"{left + len(self._failed)} outputs were not acknowledged: {reason}")

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append((error, message.topic() or ""))

    def close(self) -> None:
        self._producer.flush(TIMEOUT_S)


def _produce(to: Producer, output: Output, report: Any = None) -> None:
    try:
        _enqueue(to, output, report)
    except BufferError:  # the queue is full: what is in it is on its way
        if not to.poll(TIMEOUT_S):
            raise
        _enqueue(to, output, report)


def _enqueue(to: Producer, output: Output, report: Any) -> None:
    to.produce(
        output.topic,
        key=output.key,
        value=output.value,
        headers=list(output.headers),
        partition=ANY_PARTITION if output.partition is None else output.partition,
        on_delivery=report,
    )


def _named(error: KafkaError, transactional_id: str) -> Exception:
    if error.name() in DENIED:
        return denied(error, transactional_id)
    what = f"transactional id `{transactional_id}` could not be initialised"
    if error.name() in FENCED:
        return Fenced(f"{what}: {error.str()}")
    return BrokerUnavailable(f"{what}: {error.str()}; is the broker reachable and does it support transactions?")


def send(kafka: Properties, output: Output) -> None:
    """Produce one record and wait until it is acknowledged. Raises `BrokerUnavailable`."""
    failed: list[KafkaError] = []

    def report(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error)

    one = producer(kafka, transactional_id=None)
    _produce(one, output, report)
    left = one.flush(TIMEOUT_S)
    _refuse_for_good([(error, output.topic) for error in failed])
    if left or failed:
        reason = failed[0].str() if failed else "no answer"
        raise BrokerUnavailable(f"`{output.topic}` did not take the record: {reason}")
