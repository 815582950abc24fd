"""A soak's traffic follows from its seed and holds every fault of records it promises."""

from itertools import pairwise

from benchmarks.soak_traffic import HOUR_MS, LATENESS_MS, WINDOW_MS, Sent, plan

MODELS = ("one", "two")
SECONDS = 120


def test_same_seed_gives_the_same_traffic_and_another_seed_another() -> None:
    assert plan(7, SECONDS, MODELS) == plan(7, SECONDS, MODELS)
    assert plan(7, SECONDS, MODELS) != plan(8, SECONDS, MODELS)


def test_traffic_is_repeated_late_skewed_and_silent_at_times() -> None:
    entries = plan(7, SECONDS, MODELS)
    names = [entry.name for entry in entries]

    assert len(set(names)) < len(names)
    assert any(entry.is_late for entry in entries)
    assert {_hours(entry) for entry in entries} == {-1, 0, 1}
    assert max(later.due_ms - sooner.due_ms for sooner, later in pairwise(entries)) > WINDOW_MS


def test_without_repetition_only_what_is_marked_comes_later_than_the_lateness_allows() -> None:
    first: dict[str, Sent] = {}
    for entry in plan(7, SECONDS, MODELS, with_skew=False):
        first.setdefault(entry.name, entry)

    late = {name for name, entry in first.items() if entry.due_ms - min(entry.times_ms) > LATENESS_MS}
    assert late == {name for name, entry in first.items() if entry.is_late}


def _hours(entry: Sent) -> int:
    return round((entry.times_ms[0] - entry.due_ms) / HOUR_MS)
