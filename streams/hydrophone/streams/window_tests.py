"""Tests of closed windows, beside the loop that reads: bounded in number, none dropped.

What a test finds is decided in `judge.py`; what becomes of it, and in which order, is the runtime's business.
"""

import time
from concurrent.futures import Future
from dataclasses import dataclass

from opentelemetry.trace import Span

from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.judge import Examined, Judge
from hydrophone.streams.under_way import WAIT_S, UnderWay

__all__ = ["LoadRule", "WindowTask", "WindowTests"]


@dataclass(frozen=True, slots=True)
class LoadRule:
    """How many rows of a window are tested: k, and under overload fewer, never below `least`.

    Overload is a window that has waited for its test longer than a window lasts: tests take longer than windows, and
    waiting would only grow. A test's time grows with the square of its rows, and rows stand in random order, so the
    first half of them is a sample of half the size at a quarter of the price.
    """

    k: int
    least: int
    window_ms: int

    def rows(self, waited_ms: float) -> int:
        """k, or half of it for each window length that the longest waiting window has waited."""
        halvings = min(int(waited_ms // self.window_ms), 16)
        return min(self.k, max(self.k >> halvings, self.least))


@dataclass(frozen=True, slots=True)
class WindowTask:
    """One window under test. `done` and `examined` as of a future; `began_s` is when the window closed (monotonic)."""

    closed: WindowClosed
    span: Span
    began_s: float
    future: "Future[tuple[Examined, float]]"

    def done(self) -> bool:
        return self.future.done()

    def examined(self) -> tuple[Examined, float]:
        """What was found, and the seconds it took. Raises what the test raised."""
        return self.future.result()


class WindowTests:
    """A few threads and a bound. One thread is the rule: torch spreads a test over its own."""

    def __init__(self, judge: Judge, load: LoadRule, *, threads: int = 1, limit: int = 8) -> None:
        self._judge, self._load, self._limit = judge, load, limit
        self._under_way: UnderWay[WindowTask] = UnderWay(threads, "window-test")

    @property
    def is_full(self) -> bool:
        if len(self._under_way) >= self._limit:  # asked for every record: look closer only where it may be so
            self._under_way.drop_done()
        return len(self._under_way) >= self._limit

    def __len__(self) -> int:
        """Tests under way. Safe from another thread."""
        return len(self._under_way.pending())

    def begin(self, closed: WindowClosed, span: Span) -> WindowTask:
        """Never refuses: who asks looks at `is_full` between records, and a record closes what it closes."""
        now = time.monotonic()
        waited_ms = max((now - task.began_s for task in self._under_way.pending()), default=0.0) * 1000
        question = self._judge.question(closed, self._load.rows(waited_ms))

        def test() -> tuple[Examined, float]:
            started = time.monotonic()
            return self._judge.examine(question), time.monotonic() - started

        task = WindowTask(closed, span, now, self._under_way.submit(test))
        self._under_way.add(task)
        return task

    def wait(self, timeout_s: float = WAIT_S) -> None:
        """Until one task is done, or time is over."""
        self._under_way.wait(timeout_s)

    def forget(self) -> None:
        """What has not begun never will; what is under way ends unheard."""
        self._under_way.forget()

    def close(self) -> None:
        self._under_way.close()
