"""A model on two partitions is told of by whoever has one of them; one that always follows a rule of its own is not."""

from itertools import pairwise

import pytest

from hydrophone.schemas.operations import ModelState
from hydrophone.schemas.score import Counts
from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.misplaced import FIRST_PAUSE_MS, Misplaced, home, murmur2

COUNTS = Counts(seen=1, tested=0, rejected=0, quarantined=0, duplicate=0, late_since_previous=0, ignored_tensors=0)


def closed(model: str, partition: int, end_ms: int = 1_000) -> WindowClosed:
    return WindowClosed(model, end_ms - 1_000, end_ms, partition, 0, 1, COUNTS, None, ())


def memory(model: str, last_end_ms: int) -> dict[str, ModelState]:
    return {model: ModelState(model=model, reference_sha256="0" * 64, last_end_ms=last_end_ms)}


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_the_one_that_kafka_tests_itself_with(key: bytes, signed: int) -> None:
    """The vectors are of `UtilsTest.testMurmur2` in Apache Kafka."""
    assert murmur2(key) == signed % 2**32


def test_a_model_that_is_where_its_key_says_is_not_looked_for() -> None:
    seen = Misplaced("t")
    assert seen.half(closed("two", home("two", 3)), 3) is None
    assert seen.to_look_at(10**12, 3) is None


def test_a_stray_with_a_memory_of_the_same_window_elsewhere_is_on_two_partitions() -> None:
    seen = Misplaced("t")
    away = (home("two", 3) + 1) % 3
    assert seen.half(closed("two", away), 3) is None
    assert [seen.to_look_at(10**12, 3) for _ in range(4)] == [0, 1, 2, None]

    assert seen.halves(home("two", 3), memory("two", 999), {away}) == [], "it was there once, and moved"
    assert seen.halves(away, memory("two", 1_000), {away}) == [], "its own memory"
    assert seen.halves(home("two", 3), memory("two", 1_000), {home("two", 3)}) == [], "ours no longer"
    (event,) = seen.halves(home("two", 3), memory("two", 1_000), {away})
    assert (event.kind, event.model, event.partition) == ("model_on_two_partitions", "two", away)
    assert seen.halves(home("two", 3), memory("two", 2_000), {away}) == [], "once"
    assert seen.to_look_at(10**12 + 10**9, 3) is None, "and then no more"


def test_a_publisher_with_a_rule_of_its_own_is_looked_at_ever_more_seldom() -> None:
    seen = Misplaced("t")
    seen.half(closed("two", (home("two", 1_000) + 1) % 1_000), 1)
    looked = [now for now in range(10**6, 10**6 + 40 * FIRST_PAUSE_MS, 1_000) if seen.to_look_at(now, 1) is not None]
    pauses = [after - before for before, after in pairwise(looked)]
    assert pauses == sorted(pauses)
    assert len(looked) < 8
