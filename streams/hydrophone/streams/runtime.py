"""The thin shell around `step`: reads records, performs effects in order, commits outputs and offsets together.

Everything that decides lives elsewhere. What happens here and nowhere else: partitions come and go, windows are tested
beside the loop and told in order, reading waits where tests cannot keep pace, a transaction that did not end well
throws state away and rebuilds it from what the broker says is committed, a signal drains.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import Retrying, retry_if_exception_type, stop_any, stop_when_event_set, wait_exponential

from hydrophone.schemas.errors import BrokerUnavailable, Fenced, Retryable, TopicMissing
from hydrophone.schemas.operations import operational_event
from hydrophone.streams.effects import DeadLettered, Effect, RowsLate, WindowClosed
from hydrophone.streams.judge import Judge, Judgement
from hydrophone.streams.kafka.delivery import Delivery, DeliveryFailed
from hydrophone.streams.kafka.groups import is_instance_taken
from hydrophone.streams.kafka.intake import Intake
from hydrophone.streams.kafka.messages import headers_of
from hydrophone.streams.kafka.recovery import Recovery
from hydrophone.streams.kafka.references import ReferenceFeed
from hydrophone.streams.kafka.tables import TableReader
from hydrophone.streams.kafka.trouble import DENIED, denied
from hydrophone.streams.ledger import Due, Place
from hydrophone.streams.outputs import Output, OutputTopics
from hydrophone.streams.ownership import OwnedPartition
from hydrophone.streams.processor import StreamRules, step
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.telemetry import Telemetry, traceparent_of
from hydrophone.streams.telling import tell, tell_accounts
from hydrophone.streams.window_tests import WindowTask, WindowTests

__all__ = ["Cadence", "Runtime"]

log = logging.getLogger("hydrophone")

LEAST_PATIENCE_S: Final = 0.1
MOST_PATIENCE_S: Final = 5.0
REVOKE_S: Final = 5.0
"""How long a partition that is to move waits for its tests: the group waits with it."""

DRAIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Cadence:
    """How much is read at once and how often it is committed. Scores are committed as soon as their tests are done."""

    batch: int = 500
    wait_ms: int = 50
    wait_testing_ms: int = 5
    commit_ms: int = 200
    position_commit_ms: int = 1_000
    references_ms: int = 1_000
    topic_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class _Untold:
    """A window whose test is concluded; it is spoken of once its score is committed."""

    judgement: Judgement
    closed_at_s: float
    test_s: float


class Runtime:
    """One processor. `run` returns after a drain; it raises what should stop the process."""

    def __init__(
        self,
        *,
        consumer: Consumer,
        delivery: Delivery,
        tables: TableReader,
        references: ReferenceFeed | None,
        activations: str,
        state_topic: str,
        outputs: OutputTopics,
        rules: StreamRules,
        judge: Judge,
        tests: WindowTests,
        clock: Callable[[], int],
        telemetry: Telemetry,
        cadence: Cadence = Cadence(),
        group: str = "",
    ) -> None:
        self._consumer, self._delivery, self._tables, self._references = consumer, delivery, tables, references
        self._topic, self._outputs, self._rules, self._judge = activations, outputs, rules, judge
        self._tests, self._clock, self._telemetry, self._cadence = tests, clock, telemetry, cadence
        self._recovery = Recovery(
            consumer, tables, topic=activations, state_topic=state_topic, window_ms=rules.time.window_ms
        )
        self._partitions: dict[int, OwnedPartition] = {}
        self._intake = Intake(consumer, batch=cadence.batch)
        self._group = group
        self._untold: list[_Untold] = []
        self._committed_ms = self._references_ms = self._topic_ms = self._absences = 0
        self._homes: dict[str, int] = {}
        self._has_rewound = False
        self._failures = 0
        self._stopping = threading.Event()
        telemetry.observe_lag(self._lags)
        telemetry.observe_tests(lambda: len(tests))

    def stop(self) -> None:
        """Drain: finish the batch at hand, commit, leave the group. Safe from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Raises `ConfigurationError`, `Fenced`, or `BrokerUnavailable` when the broker is gone for good."""
        self.start()
        try:
            while not self._stopping.is_set():
                self.turn()
            self._finish_tests(self._partitions.values(), DRAIN_S)
            self._commit()
        except BaseException as error:
            self._abandon()
            if isinstance(error, KafkaException):
                raise BrokerUnavailable(f"the broker could not be asked: {error.args[0].str()}") from error
            raise
        finally:
            self.close()

    def start(self) -> None:
        """Join the group; partitions come during `turn`."""
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def close(self) -> None:
        """Leave the group; what is not committed is somebody else's to do again."""
        self._consumer.close()
        self._tests.close()
        self._delivery.close()
        self._tables.close()
        if self._references is not None:
            self._references.close()

    def turn(self) -> int:
        """One batch: read, decide, perform, commit what is due. Gives how many messages were handled."""
        self._has_rewound = False
        self._read()
        if self._has_rewound:  # by a rebalance in there: part of what came may be from after the seek
            self._intake.clear()
            self._seek_to_positions()
            return 0
        now_ms = self._clock()
        handled = self._handle_backlog(now_ms)
        if not handled:
            self._check_topic(now_ms)
        self._follow_references(now_ms)
        self._let_time_pass(now_ms)
        self._commit_if_due(now_ms)
        return handled

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Always poll, or the group would give our partitions away; while tests cannot keep pace, take nothing in."""
        if self._tests.is_full:
            self._tests.wait()
        if self._intake or self._tests.is_full:
            self._intake.hold(self._unblocked())
            self._intake.poll(0)
        else:
            self._intake.release(self._unblocked())
            self._intake.poll(self._cadence.wait_testing_ms if len(self._tests) else self._cadence.wait_ms)

    def _unblocked(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, n) for n, owned in self._partitions.items() if not owned.is_blocked]

    def _handle_backlog(self, now_ms: int) -> int:
        """Until a test more would be too many, or what is left comes again in its order after a rewind."""
        handled = 0
        while self._intake and not self._tests.is_full:
            self._handle(self._intake.next(), now_ms)
            handled += 1
            if self._has_rewound:
                self._intake.clear()
        return handled

    def _handle(self, message: Message, now_ms: int) -> None:
        number = message.partition()
        partition = self._partitions.get(number) if number is not None else None
        error = message.error()
        if error is not None:
            self._on_error(error, partition)
            return
        if partition is None or partition.is_blocked:
            return  # revoked, or read ahead of a reference that is not there yet
        timestamp = message.timestamp()[1]
        record = Record(
            self._topic,
            partition.state.partition,
            message.offset() or 0,
            timestamp,
            message.key(),
            message.value(),
            headers_of(message),
        )
        partition.is_at_end = False  # also where the record must wait: the clock may not pass over it
        if self._references is not None and self._is_blocked(record, partition):
            return
        partition.active_ms = now_ms
        partition.is_dirty = True
        partition.state, effects = step(partition.state, record, now_ms, self._rules)
        if effects:
            self._perform(partition, effects)

    def _on_error(self, error: KafkaError, partition: OwnedPartition | None) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001  # documented constant, here and below
            if partition is not None:
                partition.is_at_end = True
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
            log.error("the log no longer holds what comes next: %s", error.str())
            self._recover_all()
        elif code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):  # noqa: SLF001
            raise TopicMissing(f"`{self._topic}` is gone: {error.str()}; create it with `hydrophone topics create`")
        elif is_instance_taken(error):
            raise Fenced(
                "`--instance-id` is held by another process, or by one that was killed less than the group's session "
                f"time-out ago: {error.str()}"
            )
        elif code == KafkaError._FATAL or error.fatal():  # noqa: SLF001  # takes no more part, for ever
            raise BrokerUnavailable(error.str())
        elif error.name() in DENIED:
            is_topic = code == KafkaError.TOPIC_AUTHORIZATION_FAILED
            raise denied(error, self._topic if is_topic else self._group)
        else:
            log.warning("broker: %s", error.str())

    def _check_topic(self, now_ms: int) -> None:
        """The client goes quiet when the topic is deleted; a broker that has just started may not know it yet."""
        if now_ms - self._topic_ms < self._cadence.topic_ms:
            return
        self._topic_ms = now_ms
        try:
            known = self._consumer.list_topics(self._topic, timeout=1).topics[self._topic]
        except KafkaException:
            return
        is_absent = known.error is not None and known.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
        self._absences = self._absences + 1 if is_absent else 0
        if self._absences > 1:
            raise TopicMissing(f"`{self._topic}` is gone: create it with `hydrophone topics create`")

    def _let_time_pass(self, now_ms: int) -> None:
        """A partition read to its end and silent for `idle_ms` closes its windows by the clock."""
        if not self._intake.is_idle:  # what has not been looked at may be of those windows
            return
        for number, partition in self._partitions.items():
            is_idle = partition.is_at_end and now_ms - partition.active_ms >= self._rules.time.idle_ms
            if is_idle and partition.state.windows and not partition.is_blocked:
                partition.state, effects = step(partition.state, PartitionEnd(number), now_ms, self._rules)
                if effects:
                    partition.is_dirty = True
                    self._perform(partition, effects)

    # -- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, partition: OwnedPartition, effects: Sequence[Effect]) -> None:
        """What one step wants; if it closed windows, what comes after it is told after them."""
        has_closed = False
        for effect in effects:
            if isinstance(effect, WindowClosed):
                self._begin_test(partition, effect)
                has_closed = True
            elif isinstance(effect, RowsLate):
                partition.ledger.add(self._outputs.late(effect))
            elif isinstance(effect, DeadLettered):
                partition.ledger.add(self._outputs.dead_letter(effect))
                log.warning("record refused", extra={"reason": effect.reason, "offset": effect.record.offset})
        if has_closed:
            partition.ledger.seal(partition.place(self._rules.time.window_ms))

    def _begin_test(self, partition: OwnedPartition, closed: WindowClosed) -> None:
        self._check_home(partition, closed)
        span = self._telemetry.window_span(closed.model, closed.start_ms, closed.traceparents)
        partition.ledger.await_task(self._tests.begin(closed, span))

    def _conclude(self, partition: OwnedPartition, task: WindowTask) -> list[Output]:
        """From what a test found to what is told of it, after the model's windows before."""
        examined, test_s = task.examined()
        previous = partition.models.get(task.closed.model)
        judgement = self._judge.decide(examined, previous, traceparent_of(task.span))
        task.span.end()
        self._untold.append(_Untold(judgement, task.began_s, test_s))
        if judgement.state is not None:
            partition.models[task.closed.model] = judgement.state
        return self._outputs.judgement(judgement, task.closed.partition, previous)

    def _finish_tests(self, partitions: Iterable[OwnedPartition], limit_s: float) -> None:
        """Wait for the tests of these partitions, but not for ever: another worker can do them again."""
        until = time.monotonic() + limit_s
        waited_for = list(partitions)
        while any(not task.done() for owned in waited_for for task in owned.ledger.under_way()):
            left = until - time.monotonic()
            if left <= 0:
                return
            self._tests.wait(left)

    def _check_home(self, partition: OwnedPartition, closed: WindowClosed) -> None:
        """A model's rows on two partitions make two half windows: somebody produces with another partitioner."""
        home = self._homes.setdefault(closed.model, closed.partition)
        if home != closed.partition:
            detail = f"model `{closed.model}` came on partitions {home} and {closed.partition}; use murmur2_random"
            event = operational_event(
                "model_on_two_partitions", self._topic, closed.partition, detail, model=closed.model
            )
            partition.ledger.add(self._outputs.event(event, closed.end_ms))

    # -- commits ------------------------------------------------------------------------------------------------------

    def _commit_if_due(self, now_ms: int) -> None:
        since = now_ms - self._committed_ms
        owned = self._partitions.values()
        self._conclude_tests()
        if (
            self._untold
            or (since >= self._cadence.commit_ms and any(p.ledger.has_outputs for p in owned))
            or (since >= self._cadence.position_commit_ms and any(p.is_dirty for p in owned))
        ):
            self._commit()

    def _conclude_tests(self) -> None:
        for partition in self._partitions.values():
            partition.ledger.conclude(partial(self._conclude, partition))

    def _commit(self) -> None:
        """Outputs and positions, all or nothing; after a failure everything is rebuilt from what is committed."""
        self._conclude_tests()
        due = self._due()
        if not due:
            return
        places = {n: x.place or self._partitions[n].place(self._rules.time.window_ms) for n, x in due.items()}
        outputs = [output for one in due.values() for output in one.outputs]
        try:
            self._delivery.deliver(outputs, self._offsets(places), self._consumer)
        except DeliveryFailed as failure:
            self._telemetry.transactions.add(1, {"outcome": "failed"})
            log.warning("nothing was committed, going back to what was: %s", failure)
            self._stopping.wait(min(MOST_PATIENCE_S, LEAST_PATIENCE_S * 2**self._failures))
            self._failures += 1
            self._recover_all()
            return
        self._failures = 0
        self._telemetry.transactions.add(1, {"outcome": "committed"})
        self._committed_ms = self._clock()
        for number, one in due.items():
            self._partitions[number].ledger.settle(one)
            self._partitions[number].is_dirty = one.place is not None
        self._tell(places)

    def _due(self) -> dict[int, Due]:
        candidates = {n: p.ledger.due() for n, p in self._partitions.items() if p.is_dirty or p.ledger.has_outputs}
        return {number: due for number, due in candidates.items() if due is not None}

    def _offsets(self, places: dict[int, Place]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, n, place.offset, place.checkpoint) for n, place in sorted(places.items())]

    def _tell(self, places: dict[int, Place]) -> None:
        """Logs and instruments speak of what is committed."""
        done = time.monotonic()
        for window in self._untold:
            tell(self._telemetry, window.judgement, test_s=window.test_s, latency_s=done - window.closed_at_s)
        self._untold.clear()
        for number, place in places.items():
            partition = self._partitions[number]
            tell_accounts(self._telemetry, partition.reported, place.accounts)
            partition.reported = place.accounts

    # -- partitions ---------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._stopping.is_set():  # a rebalance on the way out: without state nothing of them is read or committed
            consumer.incremental_assign(partitions)
            return
        log.info("partitions assigned", extra={"partitions": [p.partition for p in partitions]})
        places = [self._recover_patiently(p.partition) for p in partitions]
        consumer.incremental_assign(places)
        self._intake.keep_held(places)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("partitions revoked", extra={"partitions": [p.partition for p in partitions]})
        mine = [owned for p in partitions if (owned := self._partitions.get(p.partition)) is not None]
        self._finish_tests(mine, REVOKE_S)
        self._commit()
        self._drop(partitions)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else has them already: nothing of ours about them may be committed."""
        log.warning("partitions lost", extra={"partitions": [p.partition for p in partitions]})
        self._drop(partitions)
        consumer.incremental_unassign(partitions)
        self._recover_all()

    def _abandon(self) -> None:
        """Leave everything as it was committed: closing the consumer must not commit what was done by halves."""
        self._untold.clear()
        self._tests.forget()
        self._partitions.clear()

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._partitions.pop(partition.partition, None)
        self._intake.drop(partition.partition for partition in partitions)

    def _recover_all(self) -> None:
        """Forget everything uncommitted and read on from what is committed."""
        self._has_rewound = True
        self._intake.start_anew()
        self._untold.clear()
        self._tests.forget()
        for number in list(self._partitions):
            self._intake.read_from(self._recover_patiently(number), now=True)

    def _seek_to_positions(self) -> None:
        for number, partition in self._partitions.items():
            partition.is_at_end = False
            self._consumer.seek(TopicPartition(self._topic, number, partition.state.position))

    def _recover_patiently(self, number: int) -> TopicPartition:
        attempts = Retrying(
            retry=retry_if_exception_type((KafkaException, Retryable)),
            wait=wait_exponential(0.2, max=5),
            stop=stop_any(stop_when_event_set(self._stopping)),
            before_sleep=lambda call: log.warning(
                "partition %d cannot be recovered yet: %s", number, call.outcome.exception() if call.outcome else None
            ),
            reraise=True,
        )
        return attempts(self._recover, number)

    def _recover(self, number: int) -> TopicPartition:
        partition, place, gap = self._recovery.recover(number, self._partitions.get(number), self._clock())
        if gap is not None:
            log.error(gap.detail, extra={"partition": number})
            partition.ledger.add(self._outputs.event(gap, self._clock()))
        self._partitions[number] = partition
        return place

    def _lags(self) -> dict[int, int]:
        lags = {}
        for number, partition in dict(self._partitions).items():
            try:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            except (KafkaException, RuntimeError):  # asked while closing
                continue
            lags[number] = max(0, high - partition.state.position)
        return lags

    # -- references ---------------------------------------------------------------------------------------------------

    def _follow_references(self, now_ms: int) -> None:
        if self._references is None or now_ms - self._references_ms < self._cadence.references_ms:
            return
        self._references_ms = now_ms
        self._references.poll(now_ms)
        blocked = [number for number, partition in self._partitions.items() if partition.is_blocked]
        for number in blocked:  # read on; a record whose reference is still missing blocks again
            partition = self._partitions[number]
            partition.is_blocked = False
            place = TopicPartition(self._topic, number, partition.state.position)
            self._intake.read_from(place)

    def _is_blocked(self, record: Record, partition: OwnedPartition) -> bool:
        """Records of a model whose announced reference cannot be loaded wait, and so does what lies behind them."""
        assert self._references is not None, "only an announced reference can be missing"
        blocked = self._references.blocked.get((record.key or b"").decode(errors="replace"))
        if blocked is None:
            return False
        pointer, reason = blocked
        if pointer.effective_from_ms > self._rules.time.latest_credible(record.timestamp_ms):
            return False  # not yet in force for any row this record can hold
        partition.is_blocked = True
        self._consumer.pause([TopicPartition(self._topic, record.partition)])
        if partition.told_blocked != pointer.key:
            partition.told_blocked = pointer.key
            detail = f"reference `{pointer.key}` at {pointer.uri} cannot be loaded: {reason}"
            event = operational_event(
                "reference_unloadable", self._topic, record.partition, detail, model=pointer.model
            )
            partition.ledger.add(self._outputs.event(event, pointer.effective_from_ms))
        return True
