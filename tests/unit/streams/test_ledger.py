"""What is told of a partition is told in the order of its log, and never past a window that is still being tested."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from hydrophone.streams.ledger import Ledger, Place
from hydrophone.streams.outputs import Output


@dataclass
class Task:
    name: str
    is_done: bool = False
    outputs: list[Output] = field(default_factory=list)

    def done(self) -> bool:
        return self.is_done


def output(name: str) -> Output:
    return Output(name, None, None, [])


def place(offset: int) -> Place:
    return Place(offset, "", {})


def finish(task: Task) -> list[Output]:
    return [output(task.name)]


def names(ledger: Ledger[Task]) -> list[str] | None:
    due = ledger.due()
    return None if due is None else [one.topic for one in due.outputs]


def test_nothing_of_a_step_is_due_before_all_its_windows_are_tested() -> None:
    #   late  close(a) close(b) │ dead          a is done, b is not
    ledger: Ledger[Task] = Ledger()
    a, b = Task("a", is_done=True), Task("b")
    ledger.add(output("late"))
    ledger.await_task(a)
    ledger.await_task(b)
    ledger.seal(place(7))
    ledger.add(output("dead"))

    ledger.conclude(finish)
    assert ledger.due() is None
    assert ledger.under_way() == [a, b]

    b.is_done = True
    ledger.conclude(finish)
    assert names(ledger) == ["late", "a", "b", "dead"]
    due = ledger.due()
    assert due is not None
    assert due.place is None, "everything is told, so the partition's present place holds"


def test_a_finished_test_waits_for_one_before_it() -> None:
    ledger: Ledger[Task] = Ledger()
    first, second = Task("first"), Task("second", is_done=True)
    for offset, task in enumerate((first, second)):
        ledger.await_task(task)
        ledger.seal(place(offset))

    ledger.conclude(finish)

    assert ledger.due() is None
    assert ledger.has_outputs


def test_what_was_told_is_told_once_and_the_place_is_that_after_it() -> None:
    #   close(a) │ close(b) │ dead        a is done
    ledger: Ledger[Task] = Ledger()
    a, b = Task("a", is_done=True), Task("b")
    ledger.await_task(a)
    ledger.seal(place(1))
    ledger.await_task(b)
    ledger.seal(place(2))
    ledger.add(output("dead"))
    ledger.conclude(finish)

    due = ledger.due()
    assert due is not None
    assert (names(ledger), due.place) == (["a"], place(1))
    ledger.settle(due)
    assert ledger.due() is None

    b.is_done = True
    ledger.conclude(finish)
    due = ledger.due()
    assert due is not None
    assert (names(ledger), due.place) == (["b", "dead"], None)
    ledger.settle(due)
    assert not ledger.has_outputs


@settings(deadline=None, max_examples=400)
@given(st.lists(st.sampled_from(("output", "close", "close twice", "done", "commit")), max_size=40), st.randoms())
def test_any_order_of_finishing_tells_everything_once_and_in_order(script: list[str], random: object) -> None:
    ledger: Ledger[Task] = Ledger()
    expected: list[str] = []
    sealed_after: list[int] = []
    told: list[str] = []
    open_tasks: list[Task] = []
    for number, action in enumerate([*script, "done all", "commit"]):
        if action == "output":
            ledger.add(output(f"{number}"))
            expected.append(f"{number}")
        elif action.startswith("close"):
            for part in range(2 if action == "close twice" else 1):
                open_tasks.append(Task(f"{number}.{part}"))
                ledger.await_task(open_tasks[-1])
                expected.append(f"{number}.{part}")
            sealed_after.append(len(expected))
            ledger.seal(place(len(expected)))
        elif action == "done" and open_tasks:
            task = random.choice(open_tasks)  # type: ignore[attr-defined]
            task.is_done = True
        elif action == "done all":
            for task in open_tasks:
                task.is_done = True
        elif action == "commit":
            ledger.conclude(finish)
            due = ledger.due()
            if due is not None:
                told += [one.topic for one in due.outputs]
                assert due.place is None or due.place.offset == len(told), "the place is that after what is told"
                ledger.settle(due)
            assert told == expected[: len(told)]
    assert told == expected
