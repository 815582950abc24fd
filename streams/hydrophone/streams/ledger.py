"""What of one partition waits to be committed, in the order of its log. Bookkeeping; nothing is sent here.

A window is tested beside the loop while later records are read, so what is to be told comes in another order than it is
known. An entry ends with the step that closed a window and holds the place after that step; entries are committed
whole and in order, the longest run whose tests are done:

    log       late   dead   close close │ dead   close │ late
    entry    [──────────── 1 ───────────][───── 2 ────][── 3 ...     3 is open: nothing in it is being tested
    commit    1 once both tests are done, with the place after it; 2 never before 1

That keeps rules R1 and R2 of the recovery argument (docs/decisions/0004): a committed watermark never passes a window
whose score is not in the same transaction or an earlier one, and a window's late rows are told after its score.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from hydrophone.streams.outputs import Output

__all__ = ["Due", "Ledger", "Place"]


class Task(Protocol):
    """Something under way beside the loop."""

    def done(self) -> bool: ...


T = TypeVar("T", bound=Task)


class Place(NamedTuple):
    """Where a partition can be taken up again: the offset to read on from, what stands beside it, and the accounts of
    everything before."""

    offset: int
    checkpoint: str
    accounts: dict[str, int]


@dataclass(slots=True)
class _Entry(Generic[T]):
    items: list[Output | T] = field(default_factory=list)
    place: Place | None = None
    size: int = 0

    @property
    def is_under_way(self) -> bool:
        return not all(isinstance(item, Output) or item.done() for item in self.items)

    def conclude(self, finish: Callable[[T], Sequence[Output]]) -> None:
        """Put the outputs of its tasks, which are all done, in their places."""
        concluded: list[Output | T] = []
        for item in self.items:
            concluded += [item] if isinstance(item, Output) else finish(item)
        self.items = concluded
        self.size = sum(item.size for item in concluded if isinstance(item, Output))


class Due(NamedTuple):
    """What can be committed now: outputs in order, the place after them (None: the partition's present one), and how
    many sealed entries that is."""

    outputs: list[Output]
    place: Place | None
    entries: int


class Ledger(Generic[T]):
    """Owned by one partition. After a failed commit it is thrown away with everything else that is not committed."""

    def __init__(self) -> None:
        self._sealed: deque[_Entry[T]] = deque()
        self._open: _Entry[T] = _Entry()

    def add(self, *outputs: Output) -> None:
        self._open.items += outputs
        self._open.size += sum(output.size for output in outputs)

    def await_task(self, task: T) -> None:
        """Its outputs will stand here. The entry must be sealed before anything else is read."""
        self._open.items.append(task)

    def seal(self, place: Place) -> None:
        """The step that closed windows is over; what comes now can only be committed after it."""
        self._open.place = place
        self._sealed.append(self._open)
        self._open = _Entry()

    @property
    def size(self) -> int:
        """Bytes of the outputs that wait here."""
        return self._open.size + sum(entry.size for entry in self._sealed)

    @property
    def has_outputs(self) -> bool:
        """Something beside a position waits here."""
        return bool(self._sealed or self._open.items)

    def under_way(self) -> list[T]:
        """The tasks that are not concluded yet, in order."""
        return [item for entry in self._sealed for item in entry.items if not isinstance(item, Output)]

    def conclude(self, finish: Callable[[T], Sequence[Output]]) -> None:
        """Turn the tasks of finished entries into outputs, in the order of the log: `finish` may build on what it did
        before."""
        for entry in self._sealed:
            if entry.is_under_way:
                return
            entry.conclude(finish)

    def due(self) -> Due | None:
        """The longest concluded run; None while the first entry is still under way."""
        outputs: list[Output] = []
        place: Place | None = None
        for number, entry in enumerate(self._sealed):
            found = [item for item in entry.items if isinstance(item, Output)]
            if len(found) < len(entry.items):
                return Due(outputs, place, number) if number else None
            outputs += found
            place = entry.place
        return Due([*outputs, *self._open_outputs()], None, len(self._sealed))

    def _open_outputs(self) -> list[Output]:
        outputs = [item for item in self._open.items if isinstance(item, Output)]
        assert len(outputs) == len(self._open.items), "an entry with a task must be sealed before it can be due"
        return outputs

    def settle(self, due: Due) -> None:
        """It was committed."""
        for _ in range(due.entries):
            self._sealed.popleft()
        if due.place is None:
            self._open = _Entry()
