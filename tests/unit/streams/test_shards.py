"""Which key a frame travels under, and which windows are merged."""

import uuid
from collections import Counter

from hydrophone.schemas.operations import ShardPlan
from hydrophone.streams.shards import ShardPlans, first_instant, shard_of
from hydrophone.streams.watermark import TimeRules


def plans(*made: tuple[int, int]) -> ShardPlans:
    return ShardPlans(ShardPlan(model="m", shards=shards, effective_from_ms=start) for start, shards in made)


def test_without_a_plan_nothing_is_merged_and_keys_are_plain() -> None:
    none = ShardPlans()

    assert not none
    assert not none.is_merged("m", 0)
    assert none.key("m", "f", 5) == "m"
    assert none.keys("m", 5) == ["m"]


def test_windows_are_merged_from_the_first_plan_on_whatever_follows() -> None:
    #   0 ... 100 ───── 4 ───── 200 ───── 1 ─────
    known = plans((200, 1), (100, 4))

    assert [known.is_merged("m", start) for start in (0, 99, 100, 200, 10_000)] == [False, False, True, True, True]
    assert not known.is_merged("other", 10_000)


def test_a_frame_with_a_row_before_the_plan_has_the_plain_key() -> None:
    known = plans((100, 4), (200, 2))

    assert known.key("m", "f", 99) == "m"
    assert known.key("m", "f", 100) == f"m#{shard_of('f', 4)}"
    assert known.key("m", "f", 200) == f"m#{shard_of('f', 2)}"
    assert known.keys("m", 150) == ["m", "m#0", "m#1", "m#2", "m#3"]


def test_one_shard_has_the_plain_key() -> None:
    assert plans((0, 1)).key("m", "f", 5) == "m"
    assert plans((0, 1)).keys("m", 5) == ["m"]


def test_a_frame_has_one_shard_and_frames_have_all_of_them_alike() -> None:
    ids = [str(uuid.UUID(int=number, version=4)) for number in range(4_000)]

    assert [shard_of(name, 4) for name in ids] == [shard_of(name, 4) for name in ids]
    # Binomial(4000, 1/4): 1000 with a deviation of 27; five of them are one in a million.
    assert all(abs(count - 1_000) < 137 for count in Counter(shard_of(name, 4) for name in ids).values())


def test_of_two_plans_for_one_instant_the_later_counts() -> None:
    assert plans((0, 4), (0, 2)).keys("m", 5) == ["m", "m#0", "m#1"]


def test_the_first_instant_of_a_plan_is_a_windows_start_that_no_row_can_be_in_yet() -> None:
    time = TimeRules(window_ms=1_000, lateness_ms=800, future_skew_ms=500, expected_delay_ms=300)

    assert first_instant(10_000, time) == 12_000
    assert first_instant(10_200, time) == 12_000
    assert first_instant(10_201, time) == 13_000
