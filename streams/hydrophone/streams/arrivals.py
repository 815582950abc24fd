"""Rows as they arrive, judged one by one beside the loop: batched, bounded, in the order of the log.

Rows of several records are put together, because the detectors cost a fraction per row in batches of a thousand. What
they say becomes records in `verdicts.py`; where those stand among a partition's other outputs is the ledger's business.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from hydrophone.streams.effects import RowsArrived
from hydrophone.streams.under_way import WAIT_S, UnderWay
from hydrophone.streams.verdicts import Arrival, JudgedFrames, SampleJudge

__all__ = ["ArrivalTasks", "VerdictTask"]

BATCH_ROWS: Final = 1_024
LIMIT_ROWS: Final = 16 * BATCH_ROWS
"""Rows waiting or being judged before reading waits: their records are held in memory."""


@dataclass(slots=True)
class VerdictTask:
    """Rows of one partition that are judged together. It collects until it is begun."""

    arrivals: list[Arrival] = field(default_factory=list)
    rows: int = 0
    future: "Future[JudgedFrames] | None" = None

    @property
    def is_large(self) -> bool:
        return self.rows >= BATCH_ROWS

    def done(self) -> bool:
        return self.future is not None and self.future.done()

    def judged(self) -> JudgedFrames:
        """What was found. Call it when done; raises what the judging raised."""
        assert self.future is not None, "a task that was never begun is never done"
        return self.future.result()


class ArrivalTasks:
    """A few threads and a bound: much of a batch is small steps, in which one thread leaves the other cores idle."""

    def __init__(self, judge: SampleJudge, *, threads: int = 2, limit_rows: int = LIMIT_ROWS) -> None:
        self._judge, self._limit = judge, limit_rows
        self._under_way: UnderWay[VerdictTask] = UnderWay(threads, "verdicts")

    def collect(self, task: VerdictTask, arrived: RowsArrived) -> None:
        arrival = self._judge.arrival(arrived)
        task.arrivals.append(arrival)
        task.rows += arrival.rows

    def begin(self, task: VerdictTask) -> None:
        """Never refuses: who asks looks at `is_full` between records."""
        judge, arrivals = self._judge, task.arrivals
        task.arrivals = []  # the thread's alone: their records are let go when it is done
        task.future = self._under_way.submit(_timed, judge, arrivals)
        self._under_way.add(task)

    @property
    def is_full(self) -> bool:
        return len(self._under_way) > 0 and self.rows >= self._limit

    @property
    def rows(self) -> int:
        """Rows being judged, or waiting to be. Safe from another thread."""
        return sum(task.rows for task in self._under_way.pending())

    def wait(self, timeout_s: float = WAIT_S) -> None:
        """Until one task is done, or time is over."""
        self._under_way.wait(timeout_s)

    def forget(self) -> None:
        """What has not begun never will; what is under way ends unheard."""
        self._under_way.forget()

    def close(self) -> None:
        self._under_way.close()


def _timed(judge: SampleJudge, arrivals: Sequence[Arrival]) -> JudgedFrames:
    started = time.monotonic()
    judged = judge.judge(arrivals)
    judged.seconds = time.monotonic() - started
    return judged
