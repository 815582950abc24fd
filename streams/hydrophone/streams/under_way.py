"""Tasks under way beside the loop, on a few threads. How many may be is for whoever begins them to say.

The loop alone begins and drops tasks; how many there are may be asked from any thread (instruments do).
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, Generic, Protocol, TypeVar

__all__ = ["WAIT_S", "UnderWay"]

WAIT_S: Final = 1.0


class Task(Protocol):
    """What a thread works at. `future` is there once it was begun."""

    @property
    def future(self) -> "Future[Any] | None": ...

    def done(self) -> bool: ...


T = TypeVar("T", bound=Task)
R = TypeVar("R")


class UnderWay(Generic[T]):
    """`submit` gives the future to make a task of, `add` takes the task into account."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._tasks: deque[T] = deque()

    def __len__(self) -> int:
        """Tasks added and not dropped yet: at least those under way."""
        return len(self._tasks)

    def submit(self, work: Callable[..., R], *arguments: object) -> "Future[R]":
        return self._threads.submit(work, *arguments)

    def add(self, task: T) -> None:
        self.drop_done()
        self._tasks.append(task)

    def pending(self) -> list[T]:
        """Those that are not done, in the order they were begun. Safe from another thread."""
        return [task for task in tuple(self._tasks) if not task.done()]

    def drop_done(self) -> None:
        self._tasks = deque(self.pending())

    def wait(self, timeout_s: float = WAIT_S) -> None:
        """Until one task is done, or time is over."""
        futures = [task.future for task in self.pending() if task.future is not None]
        if futures:
            wait(futures, timeout_s, return_when="FIRST_COMPLETED")

    def forget(self) -> None:
        """What has not begun never will; what is under way ends unheard."""
        for task in self._tasks:
            if task.future is not None:
                task.future.cancel()
        self._tasks.clear()

    def close(self) -> None:
        self.forget()
        self._threads.shutdown(wait=False, cancel_futures=True)
