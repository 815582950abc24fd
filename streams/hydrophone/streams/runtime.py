"""The thin shell around `step`: reads records, performs effects in order, commits outputs and offsets together.

Everything that decides lives elsewhere. What happens here and nowhere else: partitions come and go, a transaction that
did not end well throws state away and rebuilds it from what the broker says is committed, a signal drains.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_any, stop_when_event_set, wait_exponential

from hydrophone.schemas.errors import BrokerUnavailable, ConfigurationError, Retryable, TopicMissing
from hydrophone.schemas.operations import ModelState, operational_event
from hydrophone.streams.checkpoint import Checkpoint
from hydrophone.streams.effects import DeadLettered, Effect, RowsLate, WindowClosed
from hydrophone.streams.judge import Judge, Judgement
from hydrophone.streams.kafka.delivery import Delivery, DeliveryFailed
from hydrophone.streams.kafka.messages import headers_of
from hydrophone.streams.kafka.references import ReferenceFeed
from hydrophone.streams.kafka.tables import TableReader
from hydrophone.streams.kafka.trouble import DENIED, denied
from hydrophone.streams.outputs import Output, OutputTopics
from hydrophone.streams.processor import PartitionState, StreamRules, recover, step
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.telemetry import Telemetry, traceparent_of
from hydrophone.streams.telling import tell

__all__ = ["Cadence", "Runtime"]

log = logging.getLogger("hydrophone")

TIMEOUT_S: Final = 10.0
LEAST_PATIENCE_S: Final = 0.1
MOST_PATIENCE_S: Final = 5.0
ACCOUNT_OUTCOMES: Final = ("accepted", "duplicate", "dead_lettered", "heartbeats")
ROW_OUTCOMES: Final = ("windowed", "late", "rejected", "quarantined")


@dataclass(frozen=True, slots=True)
class Cadence:
    """How much is read at once and how often it is committed. Scores are committed at the end of their batch."""

    batch: int = 500
    wait_ms: int = 50
    commit_ms: int = 200
    position_commit_ms: int = 1_000
    references_ms: int = 1_000
    topic_ms: int = 5_000


@dataclass(slots=True)
class _Partition:
    """A partition that is ours: its state, its models' memories, and what is only known about it here."""

    state: PartitionState
    models: dict[str, ModelState]
    is_at_end: bool = False
    is_blocked: bool = False
    told_blocked: str = ""
    active_ms: int = 0
    reported: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Untold:
    """A window tested in this batch; it is spoken of once its score is committed."""

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
        clock: Callable[[], int],
        telemetry: Telemetry,
        cadence: Cadence = Cadence(),
        group: str = "",
    ) -> None:
        self._consumer, self._delivery, self._tables, self._references = consumer, delivery, tables, references
        self._topic, self._state_topic, self._outputs = activations, state_topic, outputs
        self._rules, self._judge, self._clock, self._telemetry = rules, judge, clock, telemetry
        self._cadence, self._group = cadence, group
        self._partitions: dict[int, _Partition] = {}
        self._pending: list[Output] = []
        self._untold: list[_Untold] = []
        self._committed_ms = self._references_ms = self._topic_ms = self._absences = 0
        self._dirty: set[int] = set()
        self._homes: dict[str, int] = {}
        self._has_rewound = False
        self._failures = 0
        self._stopping = threading.Event()
        telemetry.observe_lag(self._lags)

    def stop(self) -> None:
        """Drain: finish the batch at hand, commit, leave the group. Safe from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Raises `ConfigurationError`, `Fenced`, or `BrokerUnavailable` when the broker is gone for good."""
        self.start()
        try:
            while not self._stopping.is_set():
                self.turn()
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
        self._delivery.close()
        self._tables.close()
        if self._references is not None:
            self._references.close()

    def turn(self) -> int:
        """One batch: read, decide, perform, commit what is due. Gives how many messages there were."""
        self._has_rewound = False
        messages = self._consumer.consume(self._cadence.batch, timeout=self._cadence.wait_ms / 1000)
        if self._has_rewound:  # by a rebalance in there: part of this batch may be from after the seek
            self._seek_to_positions()
            return 0
        now_ms = self._clock()
        for message in messages:
            if self._has_rewound:  # what was read ahead comes again, in its order
                break
            self._handle(message, now_ms)
        if not messages:
            self._check_topic(now_ms)
        self._follow_references(now_ms)
        self._let_time_pass(now_ms)
        self._commit_if_due(now_ms)
        return len(messages)

    # -- records ------------------------------------------------------------------------------------------------------

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
        if self._references is not None and self._is_blocked(record, partition):
            return
        partition.is_at_end, partition.active_ms = False, now_ms
        self._dirty.add(record.partition)
        partition.state, effects = step(partition.state, record, now_ms, self._rules)
        if effects:
            self._perform(partition, effects)

    def _on_error(self, error: KafkaError, partition: _Partition | None) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001  # documented constant, here and below
            if partition is not None:
                partition.is_at_end = True
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
            log.error("the log no longer holds what comes next: %s", error.str())
            self._recover_all()
        elif code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):  # noqa: SLF001
            raise TopicMissing(f"`{self._topic}` is gone: {error.str()}; create it with `hydrophone topics create`")
        elif error.fatal():
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
        for number, partition in self._partitions.items():
            is_idle = partition.is_at_end and now_ms - partition.active_ms >= self._rules.time.idle_ms
            if is_idle and partition.state.windows and not partition.is_blocked:
                partition.state, effects = step(partition.state, PartitionEnd(number), now_ms, self._rules)
                if effects:
                    self._dirty.add(number)
                    self._perform(partition, effects)

    # -- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, partition: _Partition, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, WindowClosed):
                self._test(partition, effect)
            elif isinstance(effect, RowsLate):
                self._pending.append(self._outputs.late(effect))
            elif isinstance(effect, DeadLettered):
                self._pending.append(self._outputs.dead_letter(effect))
                log.warning("record refused", extra={"reason": effect.reason, "offset": effect.record.offset})

    def _test(self, partition: _Partition, closed: WindowClosed) -> None:
        self._check_home(closed)
        previous = partition.models.get(closed.model)
        span = self._telemetry.window_span(closed.model, closed.start_ms, closed.traceparents)
        started = time.monotonic()
        try:
            judgement = self._judge.judge(closed, previous, traceparent_of(span))
        finally:
            span.end()
        self._untold.append(_Untold(judgement, started, time.monotonic() - started))
        if judgement.state is not None:
            partition.models[closed.model] = judgement.state
        self._pending += self._outputs.judgement(judgement, closed.partition, previous)

    def _check_home(self, closed: WindowClosed) -> None:
        """A model's rows on two partitions make two half windows: somebody produces with another partitioner."""
        home = self._homes.setdefault(closed.model, closed.partition)
        if home != closed.partition:
            detail = f"model `{closed.model}` came on partitions {home} and {closed.partition}; use murmur2_random"
            event = operational_event(
                "model_on_two_partitions", self._topic, closed.partition, detail, model=closed.model
            )
            self._pending.append(self._outputs.event(event, closed.end_ms))

    # -- commits ------------------------------------------------------------------------------------------------------

    def _commit_if_due(self, now_ms: int) -> None:
        since = now_ms - self._committed_ms
        if (
            self._untold
            or (self._pending and since >= self._cadence.commit_ms)
            or (self._dirty and since >= self._cadence.position_commit_ms)
        ):
            self._commit()

    def _commit(self) -> None:
        """Outputs and positions, all or nothing; after a failure everything is rebuilt from what is committed."""
        if not self._pending and not self._dirty:
            return
        try:
            self._delivery.deliver(self._pending, self._offsets(), self._consumer)
        except DeliveryFailed as failure:
            self._telemetry.transactions.add(1, {"outcome": "failed"})
            log.warning("nothing was committed, going back to what was: %s", failure)
            self._stopping.wait(min(MOST_PATIENCE_S, LEAST_PATIENCE_S * 2**self._failures))
            self._failures += 1
            self._recover_all()
            return
        self._failures = 0
        self._telemetry.transactions.add(1, {"outcome": "committed"})
        done = time.monotonic()
        for window in self._untold:
            tell(self._telemetry, window.judgement, test_s=window.test_s, latency_s=done - window.closed_at_s)
        self._count()
        self._forget_pending()
        self._committed_ms = self._clock()

    def _offsets(self) -> list[TopicPartition]:
        window_ms = self._rules.time.window_ms
        states = [self._partitions[number].state for number in sorted(self._dirty) if number in self._partitions]
        return [
            TopicPartition(self._topic, state.partition, state.committable, state.checkpoint(window_ms).encode())
            for state in states
        ]

    def _forget_pending(self) -> None:
        self._pending.clear()
        self._dirty.clear()
        self._untold.clear()

    def _count(self) -> None:
        for partition in self._partitions.values():
            accounts = asdict(partition.state.accounts)
            for instrument, names in (
                (self._telemetry.records, ACCOUNT_OUTCOMES),
                (self._telemetry.rows, ROW_OUTCOMES),
            ):
                for name in names:
                    if grown := accounts[name] - partition.reported.get(name, 0):
                        instrument.add(grown, {"outcome": name})
            partition.reported = accounts

    # -- partitions ---------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("partitions assigned", extra={"partitions": [p.partition for p in partitions]})
        consumer.incremental_assign([self._recover_patiently(p.partition) for p in partitions])

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("partitions revoked", extra={"partitions": [p.partition for p in partitions]})
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
        self._forget_pending()
        self._partitions.clear()

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._partitions.pop(partition.partition, None)
            self._dirty.discard(partition.partition)

    def _recover_all(self) -> None:
        """Forget everything uncommitted and read on from what is committed."""
        self._has_rewound = True
        self._forget_pending()
        for number in list(self._partitions):
            place = self._recover_patiently(number)
            self._consumer.resume([place])
            self._consumer.seek(place)

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
        """State from the committed offset and its metadata, and the models' memories, in that order: offsets first,
        because what a transaction wrote to `state` is readable once its offsets are."""
        place = TopicPartition(self._topic, number)
        committed = self._consumer.committed([place], TIMEOUT_S)[0]
        if committed.error is not None:
            raise KafkaException(committed.error)
        low, high = self._consumer.get_watermark_offsets(place, TIMEOUT_S)
        checkpoint = Checkpoint.decode(committed.metadata, window_ms=self._rules.time.window_ms)
        offset = low if committed.offset < 0 else committed.offset
        before = self._partitions.get(number)
        reached = offset if before is None else max(offset, before.state.position)
        if reached > high:
            raise ConfigurationError(
                f"`{self._topic}` [{number}] was read up to offset {reached} and ends at {high}: the topic was deleted "
                "and created anew; choose another `--group`, or reset this one"
            )
        if offset < low:
            self._announce_gap(number, offset, low)
            offset = low
        state = recover(self._topic, number, offset, checkpoint)
        self._partitions[number] = _Partition(state, self._models(number), active_ms=self._clock())
        return TopicPartition(self._topic, number, offset)

    def _announce_gap(self, number: int, offset: int, low: int) -> None:
        detail = f"offsets {offset} to {low - 1} were deleted before they were processed; raise the topic's retention"
        log.error(detail, extra={"partition": number})
        event = operational_event("log_gap", self._topic, number, detail, first_offset=offset, last_offset=low - 1)
        self._pending.append(self._outputs.event(event, self._clock()))
        self._dirty.add(number)  # so that the gap is told once

    def _models(self, number: int) -> dict[str, ModelState]:
        rows = self._tables.read(self._state_topic, number)
        try:
            states = [ModelState.model_validate_json(value) for value in rows.values()]
        except ValidationError as error:
            raise ConfigurationError(
                f"`{self._state_topic}` [{number}] holds what no processor of this version wrote: "
                f"{error.errors()[0]['msg']}; run the version that wrote it, or write a tombstone for the key"
            ) from None
        return {state.model: state for state in states}

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
            self._consumer.resume([place])
            self._consumer.seek(place)

    def _is_blocked(self, record: Record, partition: _Partition) -> bool:
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
            self._pending.append(self._outputs.event(event, pointer.effective_from_ms))
        return True
