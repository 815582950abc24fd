"""What the steps of a partition want, put into its ledger, and what tests and judges found, as outputs of it.

Windows are tested and rows judged beside the loop (`window_tests.py`, `arrivals.py`); here it is decided what begins,
what is told of it once it is done, and in which order. Reading, commits and partitions are the runtime's business.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from hydrophone.schemas.operations import ModelState
from hydrophone.streams.arrivals import ArrivalTasks, VerdictTask
from hydrophone.streams.effects import (
    DeadLettered,
    Effect,
    RowsArrived,
    RowsLate,
    SummaryClosed,
    TimePassed,
    WindowClosed,
)
from hydrophone.streams.judge import Judge
from hydrophone.streams.misplaced import Misplaced
from hydrophone.streams.outputs import Output, OutputTopics
from hydrophone.streams.ownership import OwnedPartition
from hydrophone.streams.telemetry import Telemetry, traceparent_of
from hydrophone.streams.telling import Untold, tell, tell_verdicts
from hydrophone.streams.verdicts import JudgedFrames
from hydrophone.streams.window_tests import WindowTask, WindowTests

__all__ = ["Performer"]

log = logging.getLogger("hydrophone")


class Performer:
    """`partitions`: how many `partials` has. `memories(number)`: the models' memories on that partition of `state`."""

    def __init__(
        self,
        *,
        outputs: OutputTopics,
        judge: Judge,
        tests: WindowTests,
        arrivals: ArrivalTasks,
        misplaced: Misplaced,
        partitions: Callable[[], int],
        memories: Callable[[int], Mapping[str, ModelState]],
        telemetry: Telemetry,
        window_ms: int,
    ) -> None:
        self._outputs, self._judge, self._tests, self._arrivals = outputs, judge, tests, arrivals
        self._misplaced, self._partitions, self._memories = misplaced, partitions, memories
        self._telemetry, self._window_ms = telemetry, window_ms
        self._untold: list[Untold] = []
        self._untold_verdicts: list[JudgedFrames] = []

    # -- how much is under way ----------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Tests, or rows to judge, are too many."""
        return self._tests.is_full or self._arrivals.is_full

    @property
    def is_testing(self) -> bool:
        return len(self._tests) > 0

    @property
    def has_untold(self) -> bool:
        """Windows are decided and not committed."""
        return bool(self._untold)

    def wait(self) -> None:
        """For what holds reading up: rows are judged in a moment, a test may take long."""
        (self._arrivals if self._arrivals.is_full or not self.is_testing else self._tests).wait()

    def finish(self, partitions: Iterable[OwnedPartition], limit_s: float) -> None:
        """Wait for all that is under way of these partitions, but not for ever: another worker can do it again."""
        until = time.monotonic() + limit_s
        waited_for = list(partitions)
        while any(not task.done() for owned in waited_for for task in owned.ledger.under_way()):
            left = until - time.monotonic()
            if left <= 0:
                return
            (self._tests if self.is_testing else self._arrivals).wait(left)

    # -- effects ------------------------------------------------------------------------------------------------------

    def perform(self, partition: OwnedPartition, effects: Sequence[Effect]) -> None:
        """What one step wants; if it closed windows, what comes after it is told after them. Rows that arrived are
        judged together with those of the next steps, up to a batch."""
        has_closed = False
        for effect in effects:
            if isinstance(effect, WindowClosed):
                self._begin_test(partition, effect)
                self._forget_snapshot(partition, effect)
                has_closed = True
            elif isinstance(effect, SummaryClosed):
                partition.ledger.add(*self._outputs.summary(effect))
                self._forget_snapshot(partition, effect.summary)
            elif isinstance(effect, TimePassed):
                partition.ledger.add(*self._outputs.markers(effect, self._partitions()))
            elif isinstance(effect, RowsArrived):
                self._collect(partition, effect)
            elif isinstance(effect, RowsLate):
                partition.ledger.add(self._outputs.late(effect))
            elif isinstance(effect, DeadLettered):
                self._dead_letter(partition, effect)
        if has_closed or (partition.collecting is not None and partition.collecting.is_large):
            self.seal(partition)

    def seal(self, partition: OwnedPartition) -> None:
        """Between steps: what is told so far belongs together, and so do the rows to be judged."""
        if partition.collecting is not None:
            self._arrivals.begin(partition.collecting)
            partition.collecting = None
        partition.ledger.seal(partition.place(self._window_ms))

    def _collect(self, partition: OwnedPartition, arrived: RowsArrived) -> None:
        if partition.collecting is None:
            partition.collecting = VerdictTask()
            partition.ledger.await_task(partition.collecting)
        self._arrivals.collect(partition.collecting, arrived)

    def _dead_letter(self, partition: OwnedPartition, refused: DeadLettered) -> None:
        partition.ledger.add(self._outputs.dead_letter(refused))
        log.warning("record refused", extra={"reason": refused.reason, "offset": refused.record.offset})
        if (event := self._misplaced.unplanned(refused)) is not None:
            partition.ledger.add(self._outputs.event(event, refused.record.timestamp_ms))

    def _forget_snapshot(self, partition: OwnedPartition, closed: WindowClosed) -> None:
        taken_back = partition.book.forget((closed.start_ms, closed.model))
        partition.ledger.add(*self._outputs.snapshots(taken_back, partition.state.partition))

    def _begin_test(self, partition: OwnedPartition, closed: WindowClosed) -> None:
        if (event := self._misplaced.half(closed, self._partitions())) is not None:
            partition.ledger.add(self._outputs.event(event, closed.end_ms))
        span = self._telemetry.window_span(closed.model, closed.start_ms, closed.traceparents)
        partition.ledger.await_task(self._tests.begin(closed, span))

    # -- what was found -----------------------------------------------------------------------------------------------

    def conclude(self, partition: OwnedPartition) -> None:
        """Turn what is done into outputs, in the order of the log."""
        partition.ledger.conclude(partial(self._conclude, partition))

    def _conclude(self, partition: OwnedPartition, task: WindowTask | VerdictTask) -> list[Output]:
        """From what a test found to what is told of it, after the model's windows before."""
        if isinstance(task, VerdictTask):
            judged = task.judged()
            self._untold_verdicts.append(judged)
            return judged.outputs
        examined, test_s = task.examined()
        previous = self._memory(partition, task.closed.model)
        judgement = self._judge.decide(examined, previous, traceparent_of(task.span))
        task.span.end()
        self._untold.append(Untold(judgement, task.began_s, test_s))
        if judgement.state is not None:
            partition.models[task.closed.model] = judgement.state
        return self._outputs.judgement(judgement, partition.state.partition, previous)

    def _memory(self, partition: OwnedPartition, model: str) -> ModelState | None:
        """What the model's windows before left behind. The first stage's last are decided by the time that the second
        stage's first is: their partition's time has passed them, and says so behind their scores."""
        if partition.is_merging and model not in partition.known:
            _, number = partition.key
            found = self._memories(number)
            partition.models = dict(found) | {
                name: partition.models[name] for name in partition.known & partition.models.keys()
            }
            partition.known.add(model)
        return partition.models.get(model)

    def tell(self, committed_ms: int) -> None:
        """Logs and instruments speak of what is committed, which everything concluded is now."""
        done = time.monotonic()
        for window in self._untold:
            tell(self._telemetry, window.judgement, test_s=window.test_s, latency_s=done - window.closed_at_s)
        for judged in self._untold_verdicts:
            tell_verdicts(self._telemetry, judged, committed_ms)
        self._untold.clear()
        self._untold_verdicts.clear()

    def forget(self) -> None:
        """Nothing of what is under way or untold will be committed by us; told twice, an event is one."""
        self._misplaced.forget_untold()
        self._untold.clear()
        self._untold_verdicts.clear()
        self._tests.forget()
        self._arrivals.forget()

    def close(self) -> None:
        self._tests.close()
        self._arrivals.close()
