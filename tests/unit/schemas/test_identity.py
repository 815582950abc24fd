"""A row's priority depends on the key and the row's identity, and on nothing it travels with."""

import hashlib

import numpy as np
import pytest
from tests.support.frames import frame_id

from hydrophone.schemas.identity import FramePriorities, origin_priorities
from hydrophone.schemas.origins import MAX_ROWS, Origin, Origins

KEY = b"a deployment's secret"


def test_a_priority_is_the_output_of_philox_under_the_keyed_hash_of_the_frame() -> None:
    digest = hashlib.blake2b(frame_id(1).encode(), key=KEY, digest_size=16).digest()
    fresh = np.random.Philox(key=np.frombuffer(digest, "<u8"), counter=0)
    np.testing.assert_array_equal(FramePriorities(KEY)(frame_id(1), 11), fresh.random_raw(11))


def test_priorities_of_one_frame_do_not_depend_on_those_asked_for_before() -> None:
    used = FramePriorities(KEY)
    used(frame_id(1), 3)
    np.testing.assert_array_equal(used(frame_id(2), 5), FramePriorities(KEY)(frame_id(2), 5))


def test_priorities_of_fewer_rows_are_the_first_of_more() -> None:
    np.testing.assert_array_equal(FramePriorities(KEY)(frame_id(1), 3), FramePriorities(KEY)(frame_id(1), 9)[:3])


def test_priorities_differ_by_key_and_by_frame() -> None:
    ours = FramePriorities(KEY)(frame_id(1), 8)
    assert not set(ours) & set(FramePriorities(b"other")(frame_id(1), 8))
    assert not set(ours) & set(FramePriorities(KEY)(frame_id(2), 8))


def test_a_row_has_one_priority_in_any_gathering() -> None:
    origins = Origins.of(Origin(frame_id(i % 3), i, partition=i, offset=i * 7) for i in range(20))
    gathered = origin_priorities(origins, KEY)
    some = np.array([13, 2, 7])
    np.testing.assert_array_equal(origin_priorities(origins.take(some), KEY), gathered[some])
    for origin, priority in zip(origins, gathered, strict=True):
        assert FramePriorities(KEY)(origin.frame_id, origin.row + 1)[origin.row] == priority


def test_late_rows_of_many_frames_are_ranked_without_a_table_of_each() -> None:
    origins = Origins.of(Origin(frame_id(i), MAX_ROWS - 1) for i in range(40))
    assert len(set(origin_priorities(origins, KEY).tolist())) == len(origins)


@pytest.mark.parametrize("key", [b"", b"x" * 65])
def test_a_key_of_the_wrong_length_is_named(key: bytes) -> None:
    with pytest.raises(ValueError, match="`key` must be 1 to 64 bytes"):
        FramePriorities(key)
