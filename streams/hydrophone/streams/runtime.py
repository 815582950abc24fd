"""The thin shell around `step`: reads records, performs effects in order, commits outputs and offsets together.

Everything that decides lives elsewhere. What happens here and nowhere else: partitions come and go, windows are tested
and rows judged beside the loop and told in order, reading waits where that cannot keep pace, a transaction that did not
end well throws state away and rebuilds it from what the broker says is committed, a signal drains.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from hydrophone.schemas.errors import BrokerUnavailable, Retryable, TopicMissing
from hydrophone.schemas.operations import operational_event
from hydrophone.streams.arrivals import ArrivalTasks
from hydrophone.streams.effects import (
    Effect,
)
from hydrophone.streams.judge import Judge
from hydrophone.streams.kafka.delivery import Delivery, DeliveryFailed
from hydrophone.streams.kafka.groups import check_member
from hydrophone.streams.kafka.intake import Intake
from hydrophone.streams.kafka.messages import headers_of
from hydrophone.streams.kafka.reading import Reads, TopicWatch, key_of
from hydrophone.streams.kafka.recovery import Recovery, TableTopics
from hydrophone.streams.kafka.references import ReferenceFeed
from hydrophone.streams.kafka.shard_plans import ShardPlanFeed
from hydrophone.streams.kafka.tables import TableReader
from hydrophone.streams.ledger import Due, Place
from hydrophone.streams.misplaced import Misplaced
from hydrophone.streams.outputs import OutputTopics
from hydrophone.streams.ownership import Key, OwnedPartition, Stages
from hydrophone.streams.performing import Performer
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.shards import SHARD_MARK
from hydrophone.streams.snapshots import SnapshotRules
from hydrophone.streams.telemetry import Telemetry
from hydrophone.streams.telling import tell_accounts
from hydrophone.streams.window_tests import WindowTests

__all__ = ["Cadence", "Runtime"]

log = logging.getLogger("hydrophone")

LEAST_PATIENCE_S: Final = 0.1
MOST_PATIENCE_S: Final = 5.0
REVOKE_S: Final = 5.0
"""How long a partition that is to move waits for its tests: the group waits with it."""

DRAIN_S: Final = 20.0
ANSWER_S: Final = 20.0
"""How long a partition's recovery is tried before this member joins the group anew."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """How much is read at once and how often it is committed. Scores are committed as soon as their tests are done.

    At `waiting_bytes` of outputs, which may wait behind a test, nothing more is read.
    """

    batch: int = 500
    wait_ms: int = 50
    wait_testing_ms: int = 5
    commit_ms: int = 200
    position_commit_ms: int = 1_000
    waiting_bytes: int = 64 * 1024 * 1024
    references_ms: int = 1_000


class Runtime:
    """One processor. `run` returns after a drain; it raises what should stop the process."""

    def __init__(
        self,
        *,
        consumer: Consumer,
        delivery: Delivery,
        tables: TableReader,
        glances: TableReader,
        references: ReferenceFeed | None,
        shards: ShardPlanFeed | None,
        reads: Reads,
        tables_of: TableTopics,
        snapshots: SnapshotRules,
        outputs: OutputTopics,
        stages: Stages,
        judge: Judge,
        tests: WindowTests,
        arrivals: ArrivalTasks,
        clock: Callable[[], int],
        telemetry: Telemetry,
        cadence: Cadence = Cadence(),
        group: str = "",
    ) -> None:
        self._consumer, self._delivery, self._tables, self._references = consumer, delivery, tables, references
        self._glances = glances
        self._shards, self._reads = shards, reads
        self._topic, self._outputs, self._stages = reads.activations, outputs, stages
        self._window_ms = stages.windows.time.window_ms
        self._clock, self._telemetry, self._cadence = clock, telemetry, cadence
        self._stopping = threading.Event()
        self._recovery = Recovery(
            consumer,
            tables,
            partials=reads.partials,
            tables_of=tables_of,
            snapshots=snapshots,
            windows=stages.windows,
            stopping=self._stopping,
        )
        self._partitions: dict[Key, OwnedPartition] = {}
        self._subscribed: list[str] = []
        self._intake = Intake(consumer, batch=cadence.batch)
        self._group, self._snapshots = group, snapshots
        self._committed_ms = self._references_ms = 0
        self._misplaced = Misplaced(reads.activations)
        self._performer = Performer(
            outputs=outputs,
            judge=judge,
            tests=tests,
            arrivals=arrivals,
            misplaced=self._misplaced,
            partitions=lambda: reads.partitions,
            memories=lambda n: self._recovery.patiently("a model's memory", partial(self._recovery.models, n)),
            telemetry=telemetry,
            window_ms=self._window_ms,
        )
        self._watch = TopicWatch(consumer, reads.activations)
        self._has_rewound = self._is_over = False
        self._came: set[Key] = set()
        self._must_join_anew = False
        self._failures = 0
        telemetry.observe_lag(partial(self._lags, reads.activations), partial(self._lags, reads.partials))
        telemetry.observe_tests(lambda: len(tests))
        telemetry.observe_verdicts(lambda: arrivals.rows)

    def stop(self) -> None:
        """Drain: finish the batch at hand, commit, leave the group. Safe from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Raises `ConfigurationError`, `Fenced`, or `BrokerUnavailable` when the broker is gone for good."""
        self.start()
        try:
            while not self._stopping.is_set():
                self.turn()
            self._performer.finish(self._partitions.values(), DRAIN_S)
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
        self._subscribe()

    def _subscribe(self) -> None:
        """To what there is to read by now."""
        is_sharded = self._shards is not None and bool(self._shards.plans)
        if is_sharded and not self._reads.partitions:  # whichever stage: the first writes there
            raise TopicMissing(f"`{self._reads.partials}` is not there: create it with `hydrophone topics create`")
        wanted = self._reads.topics(is_sharded=is_sharded)
        if wanted == self._subscribed:
            return
        self._subscribed = wanted
        self._consumer.subscribe(wanted, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def close(self) -> None:
        """Leave the group; what is not committed is somebody else's to do again."""
        with ExitStack() as stack:  # all of them, whichever fails; the consumer first
            parts = (self._references, self._shards, self._tables, self._glances, self._delivery, self._performer)
            for part in parts:
                if part is not None:
                    stack.callback(part.close)
            stack.callback(self._consumer.close)

    def turn(self) -> int:
        """One batch: read, decide, perform, commit what is due. Gives how many messages were handled."""
        self._has_rewound = False
        self._came.clear()
        self._read()
        if self._must_join_anew:
            self._join_anew()
            return 0
        if self._has_rewound:  # by a rebalance in there: part of what came may be from after the seek
            self._intake.clear()
            self._seek_to_positions(self._partitions)
            return 0
        if self._came:  # in there, and perhaps back: part of what came of them may be from before they went
            self._intake.drop(self._came)
            self._seek_to_positions(self._came)
        now_ms = self._clock()
        handled = self._handle_backlog(now_ms)
        if not handled:
            self._watch.look(now_ms)
        self._follow_announcements(now_ms)
        self._let_time_pass(now_ms)
        self._save_windows(now_ms)
        self._look_for_other_halves(now_ms)
        self._commit_if_due(now_ms)
        return handled

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Always poll, or the group would give our partitions away; while tests cannot keep pace, take nothing in."""
        if self._is_full():
            self._performer.wait()
        if self._intake or self._is_full():
            self._intake.hold(self._unblocked())
            self._intake.poll(0)
        else:
            if not self._intake.is_idle:  # an end seen before the hold says nothing of what came meanwhile
                for owned in self._partitions.values():
                    owned.is_at_end = False
            self._intake.release(self._unblocked())
            self._intake.poll(self._cadence.wait_testing_ms if self._performer.is_testing else self._cadence.wait_ms)

    def _is_full(self) -> bool:
        """Tests or rows to judge are too many, or what waits for one of them is too much."""
        return self._performer.is_full or self._is_over

    def _weigh(self) -> None:
        self._is_over = sum(p.ledger.size for p in self._partitions.values()) >= self._cadence.waiting_bytes

    def _unblocked(self) -> list[TopicPartition]:
        return [TopicPartition(*key) for key, owned in self._partitions.items() if not owned.is_blocked]

    def _handle_backlog(self, now_ms: int) -> int:
        """Until there is no room for more, or what is left comes again in its order after a rewind."""
        handled = 0
        while self._intake and not self._is_full():
            self._handle(self._intake.next(), now_ms)
            handled += 1
            if self._has_rewound:
                self._intake.clear()
        for partition in self._partitions.values():
            if partition.collecting is not None:  # what came at once is judged at once
                self._performer.seal(partition)
        return handled

    def _handle(self, message: Message, now_ms: int) -> None:
        partition = self._partitions.get((message.topic() or "", -1 if (n := message.partition()) is None else n))
        error = message.error()
        if error is not None:
            self._on_error(error, partition)
            return
        if partition is None or partition.is_blocked:
            return  # revoked, or read ahead of a reference that is not there yet
        timestamp = message.timestamp()[1]
        record = Record(
            *partition.key,
            message.offset() or 0,
            timestamp,
            message.key(),
            message.value(),
            headers_of(message),
        )
        partition.is_at_end = False  # also where the record must wait: the clock may not pass over it
        if self._references is not None and self._references.blocked and self._is_blocked(record, partition):
            return
        partition.active_ms = now_ms
        partition.is_dirty = True
        if effects := partition.take(record, now_ms, self._stages):
            self._perform(partition, effects)

    def _on_error(self, error: KafkaError, partition: OwnedPartition | None) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001  # documented constant, here and below
            if partition is not None:
                partition.is_at_end = True
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
            if partition is None:  # not ours to read
                return
            log.error("the log no longer holds what comes next: %s", error.str())
            self._recover_all()
        else:
            check_member(error, topic=self._topic, group=self._group)
            log.warning("broker: %s", error.str())

    def _let_time_pass(self, now_ms: int) -> None:
        """A partition read to its end and silent for `idle_ms` closes its windows by the clock."""
        if not self._intake.is_idle:  # what has not been looked at may be of those windows
            return
        rules = self._stages.windows
        for (_, number), partition in self._partitions.items():
            is_idle = partition.is_at_end and now_ms - partition.active_ms >= rules.time.idle_ms
            is_awaited = partition.state.windows or rules.shards  # sharded windows wait for every partition
            if not is_idle or not is_awaited or partition.is_blocked:
                continue
            if effects := partition.take(PartitionEnd(number), now_ms, self._stages):
                partition.is_dirty = True
                self._perform(partition, effects)

    def _save_windows(self, now_ms: int) -> None:
        """Write down windows that stay open for long; committed with the offset that counts on it."""
        for (_, number), partition in self._partitions.items():
            partition.ledger.add(*self._outputs.snapshots(partition.save(now_ms, self._snapshots), number))

    def _look_for_other_halves(self, now_ms: int) -> None:
        """Of models that are not where they are expected: does another partition have windows of them, too?"""
        number = self._misplaced.to_look_at(now_ms, self._reads.partitions)
        if number is None:
            return
        try:
            memories = self._recovery.models(number, self._glances)
        except (KafkaException, BrokerUnavailable) as error:
            log.info("the memories of partition %d cannot be looked at now: %s", number, error)
            return
        ours = {partition for topic, partition in self._partitions if topic == self._topic}
        for event in self._misplaced.halves(number, memories, ours):
            log.warning(event.detail, extra={"model": event.model})
            self._partitions[self._topic, event.partition].ledger.add(self._outputs.event(event, now_ms))

    def _perform(self, partition: OwnedPartition, effects: Sequence[Effect]) -> None:
        self._performer.perform(partition, effects)
        self._weigh()

    # -- commits ------------------------------------------------------------------------------------------------------

    def _commit_if_due(self, now_ms: int) -> None:
        since = now_ms - self._committed_ms
        owned = self._partitions.values()
        self._conclude_tests()
        if (
            self._performer.has_untold
            or self._is_over
            or (since >= self._cadence.commit_ms and any(p.ledger.has_outputs for p in owned))
            or (since >= self._cadence.position_commit_ms and any(p.is_dirty for p in owned))
        ):
            self._commit()

    def _conclude_tests(self) -> None:
        for partition in self._partitions.values():
            self._performer.conclude(partition)

    def _commit(self) -> None:
        """Outputs and positions, all or nothing; after a failure everything is rebuilt from what is committed."""
        self._conclude_tests()
        due = self._due()
        if not due:
            return
        places = {key: x.place or self._partitions[key].place(self._window_ms) for key, x in due.items()}
        outputs = [output for one in due.values() for output in one.outputs]
        try:
            self._delivery.deliver(outputs, self._offsets(places), self._consumer)
        except DeliveryFailed as failure:
            self._telemetry.transactions.add(1, {"outcome": "failed"})
            log.warning("nothing was committed, going back to what was: %s", failure)
            if self._stopping.is_set():  # a successor does it again
                self._abandon()
                return
            self._stopping.wait(min(MOST_PATIENCE_S, LEAST_PATIENCE_S * 2**self._failures))
            self._failures += 1
            self._recover_all()
            return
        self._failures = 0
        self._telemetry.transactions.add(1, {"outcome": "committed"})
        self._committed_ms = self._clock()
        for key, one in due.items():
            self._partitions[key].ledger.settle(one)
            self._partitions[key].is_dirty = one.place is not None
        self._weigh()
        self._tell(places)

    def _due(self) -> dict[Key, Due]:
        candidates = {key: p.ledger.due() for key, p in self._partitions.items() if p.is_dirty or p.ledger.has_outputs}
        return {key: due for key, due in candidates.items() if due is not None}

    def _offsets(self, places: Mapping[Key, Place]) -> list[TopicPartition]:
        return [TopicPartition(*key, place.offset, place.checkpoint) for key, place in sorted(places.items())]

    def _tell(self, places: Mapping[Key, Place]) -> None:
        """Logs and instruments speak of what is committed."""
        self._performer.tell(self._committed_ms)
        for key, place in places.items():
            partition = self._partitions[key]
            tell_accounts(self._telemetry, partition.reported, place.accounts)
            partition.reported = place.accounts

    # -- partitions ---------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._stopping.is_set():  # a rebalance on the way out: without state nothing of them is read or committed
            consumer.incremental_assign(partitions)
            return
        log.info("partitions assigned", extra=self._named(partitions))
        try:
            places = [self._recover_patiently(key_of(p)) for p in partitions]
        except (KafkaException, Retryable) as error:
            self._leave_unread(error)
            consumer.incremental_assign(partitions)
            consumer.pause(partitions)
            return
        consumer.incremental_assign(places)
        self._intake.keep_held(places)
        self._came.update(key_of(p) for p in partitions)

    def _leave_unread(self, error: Exception) -> None:
        """Nobody answers. A callback of the group must not wait for that: where the coordinator has begun another
        generation, what is asked as a member of this one is never answered, and the next begins when the callback
        ends. So it ends, without any state, and this member joins anew."""
        log.warning("partitions cannot be recovered, joining the group anew: %s", error)
        self._must_join_anew = True
        self._abandon()

    def _join_anew(self) -> None:
        self._must_join_anew = False
        self._abandon()
        self._intake.start_anew()
        self._consumer.unsubscribe()
        self._subscribed = []
        self._subscribe()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("partitions revoked", extra=self._named(partitions))
        mine = [owned for p in partitions if (owned := self._partitions.get(key_of(p))) is not None]
        self._performer.finish(mine, REVOKE_S)
        self._commit()
        self._drop(partitions)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else has them already: nothing of ours about them may be committed."""
        log.warning("partitions lost", extra=self._named(partitions))
        self._drop(partitions)
        consumer.incremental_unassign(partitions)
        self._recover_all()

    def _named(self, partitions: Sequence[TopicPartition]) -> dict[str, list[int]]:
        """By topic, as the log has them."""
        named = {"partitions": self._topic, "merging": self._reads.partials}
        return {name: [p.partition for p in partitions if p.topic == topic] for name, topic in named.items()}

    def _abandon(self) -> None:
        """Leave everything as it was committed: closing the consumer must not commit what was done by halves."""
        self._performer.forget()
        self._partitions.clear()

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            if (owned := self._partitions.pop(key_of(partition), None)) is not None:
                self._recovery.note(owned)
        self._intake.drop(key_of(partition) for partition in partitions)
        self._weigh()

    def _recover_all(self) -> None:
        """Forget everything uncommitted and read on from what is committed."""
        self._has_rewound = True
        self._intake.start_anew()
        self._performer.forget()
        try:
            for key in list(self._partitions):
                self._intake.read_from(self._recover_patiently(key), now=True)
        except (KafkaException, Retryable) as error:
            self._leave_unread(error)
        self._weigh()

    def _seek_to_positions(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if (partition := self._partitions.get(key)) is not None:
                partition.is_at_end = False
                self._consumer.seek(TopicPartition(*key, partition.state.position))

    def _recover_patiently(self, key: Key) -> TopicPartition:
        return self._recovery.patiently(f"partition {key[1]}", partial(self._recover, key), limit_s=ANSWER_S)

    def _recover(self, key: Key) -> TopicPartition:
        partition, place, events = self._recovery.recover(key, self._partitions.get(key), self._clock())
        for event in events:
            log.error(event.detail, extra={"partition": key[1]})
            partition.ledger.add(self._outputs.event(event, self._clock()))
        self._partitions[key] = partition
        return place

    def _lags(self, topic: str) -> dict[int, int]:
        lags = {}
        of_topic = {key[1]: owned for key, owned in dict(self._partitions).items() if key[0] == topic}
        for number, partition in of_topic.items():
            try:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
            except (KafkaException, RuntimeError):  # asked while closing
                continue
            lags[number] = max(0, high - partition.state.position)
        return lags

    # -- announcements ------------------------------------------------------------------------------------------------

    def _follow_announcements(self, now_ms: int) -> None:
        if now_ms - self._references_ms < self._cadence.references_ms:
            return
        self._references_ms = now_ms
        if self._shards is not None:
            self._shards.poll()
            self._subscribe()
        if self._references is None:
            return
        self._references.poll(now_ms)
        blocked = [key for key, partition in self._partitions.items() if partition.is_blocked]
        self._intake.drop(blocked)  # what lies behind the record that blocked comes again, behind it
        for key in blocked:  # read on; a record whose reference is still missing blocks again
            partition = self._partitions[key]
            partition.is_blocked = False
            self._intake.read_from(TopicPartition(*key, partition.state.position))

    def _is_blocked(self, record: Record, partition: OwnedPartition) -> bool:
        """Records of a model whose announced reference cannot be loaded wait, and so does what lies behind them."""
        assert self._references is not None, "only an announced reference can be missing"
        model, _, _ = (record.key or b"").decode(errors="replace").partition(SHARD_MARK)
        blocked = self._references.blocked.get(model)
        if blocked is None:
            return False
        pointer, reason = blocked
        if pointer.effective_from_ms > self._stages.windows.time.latest_credible(record.timestamp_ms):
            return False  # not yet in force for any row this record can hold
        partition.is_blocked = True
        self._consumer.pause([TopicPartition(*partition.key)])
        if partition.told_blocked != pointer.key:
            partition.told_blocked = pointer.key
            detail = f"reference `{pointer.key}` at {pointer.uri} cannot be loaded: {reason}"
            event = operational_event("reference_unloadable", *partition.key, detail, model=pointer.model)
            partition.ledger.add(self._outputs.event(event, pointer.effective_from_ms))
        return True
