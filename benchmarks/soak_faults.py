"""What is done to workers and broker during a soak, drawn from a seed. What they do for a living is not known here."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Self

from deploy.broker.kraft import KraftBroker
from tests.support.forked import Running

__all__ = ["FAULTS", "WORKER_FAULTS", "Crew", "Trouble"]

SESSION_MS: Final = 6_000
WORKER_FAULTS: Final = ("kill", "terminate", "freeze", "storm")
FAULTS: Final = (*WORKER_FAULTS, "kill at a point", "broker killed", "broker frozen")

POINTS: Final = ("in-test:{}=kill", "before-commit:{}=kill", "after-produce:{}=kill", "after-commit:{}=kill")

Launch = Callable[[int, str], Running]
"""A worker's place and its failpoint, to a running process."""


class Crew:
    """So many workers, each replaced when it has ended. Use it as a context manager: none outlives the block."""

    def __init__(self, launch: Launch, size: int) -> None:
        self._launch, self.size = launch, size
        self.workers: list[Running] = []
        self.exits: Counter[int] = Counter()
        self._thaws: list[tuple[float, Running]] = []

    def __enter__(self) -> Self:
        self.workers = [self._launch(place, "") for place in range(self.size)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()

    def tend(self) -> None:
        """Replace the dead and thaw the frozen whose time has come."""
        now = time.monotonic()
        for due, worker in list(self._thaws):
            if now >= due:
                self._thaws.remove((due, worker))
                _signal(worker, signal.SIGCONT)
        for place, worker in enumerate(self.workers):
            code = worker.poll()
            if code is not None:
                self.exits[code] += 1
                self.workers[place] = self._launch(place, "")

    def strike(self, number: signal.Signals, place: int) -> None:
        _signal(self.workers[place], number)

    def freeze(self, place: int, seconds: float) -> None:
        """Stop it where it stands, whatever it is doing; it wakes by itself in `tend`."""
        _signal(self.workers[place], signal.SIGSTOP)
        self._thaws.append((time.monotonic() + seconds, self.workers[place]))

    def arm(self, place: int, failpoint: str) -> None:
        """Replace a worker by one that dies at a point of its work."""
        _signal(self.workers[place], signal.SIGKILL)
        self.workers[place].wait()
        self.workers[place] = self._launch(place, failpoint)

    def drain(self, timeout_s: float = 60) -> list[int]:
        """SIGTERM for all, and their exit codes."""
        for due, worker in self._thaws:
            self._thaws.remove((due, worker))
            _signal(worker, signal.SIGCONT)
        for worker in self.workers:
            worker.terminate()
        return [worker.wait(timeout_s) for worker in self.workers]


class Trouble:
    """One fault after another, with seeded pauses; `injected` counts them by name."""

    def __init__(
        self, seed: int, crew: Crew, broker: KraftBroker, *, kinds: Sequence[str] = FAULTS, pause_s: tuple[int, int]
    ) -> None:
        self._chance = random.Random(f"trouble {seed}")
        self._crew, self._broker, self._kinds, self._pause_s = crew, broker, kinds, pause_s
        self._due = time.monotonic() + pause_s[1]
        self._bag: list[str] = []
        self.injected: Counter[str] = Counter()

    def stir(self) -> None:
        """Inject what is due. A killed broker is back when this returns."""
        self._crew.tend()
        if time.monotonic() < self._due:
            return
        if not self._bag:  # every kind before any kind again
            self._bag = self._chance.sample(self._kinds, len(self._kinds))
        kind = self._bag.pop()
        self.injected[kind] += 1
        self._inject(kind, self._chance.randrange(self._crew.size))
        self._due = time.monotonic() + self._chance.uniform(*self._pause_s)

    def _inject(self, kind: str, place: int) -> None:
        match kind:
            case "kill":
                self._crew.strike(signal.SIGKILL, place)
            case "terminate":
                self._crew.strike(signal.SIGTERM, place)
            case "freeze":
                self._crew.freeze(place, 2 * SESSION_MS / 1_000)
            case "storm":  # all but one, so that every partition moves
                for other in range(self._crew.size):
                    if other != place:
                        self._crew.strike(signal.SIGTERM, other)
            case "kill at a point":
                self._crew.arm(place, self._chance.choice(POINTS).format(self._chance.randint(1, 6)))
            case "broker killed":
                self._broker.kill()
                self._broker.restart()
            case "broker frozen":
                self._broker.suspend()
                time.sleep(self._chance.uniform(1, 4))
                self._broker.resume()


def _signal(worker: Running, number: signal.Signals) -> None:
    if worker.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, number)
