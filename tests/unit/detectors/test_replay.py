"""How surprising repetitions are, and that repeated rows enter a test once."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import betabinom
from tests.support.frames import class_frame, frame_id, gaussian_frame, plain_frame, split_frame

from hydrophone.detectors import Reference, fit_reference
from hydrophone.detectors.artefact import Repetition
from hydrophone.detectors.assessment import MIN_SAMPLES
from hydrophone.detectors.replay import TOP_GROUPS, TOP_LABELS, blocks_of, count_repetition, repetition_p_value
from hydrophone.detectors.result import LABEL_LIMIT
from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.score import WindowScore

WINDOW = WindowBounds(start_ms=0, end_ms=60_000)
NEVER = (Repetition(size=256, blocks=8, repeated=0, squares=0),)


def repeating(rows: int, copies: int, seed: int = 2, **parts: Any) -> Frame:
    """`rows` rows, of which the last `copies` are all the last one."""
    values = gaussian_frame(rows, seed).layers["fc"]
    values[-copies:] = values[-1]
    return plain_frame({"fc": values}, seed, **parts)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return fit_reference([gaussian_frame(600, 1)], permutations=199, device="cpu")


# In a window ---------------------------------------------------------------------------------------------------------


def test_copies_are_tested_once_and_counted(reference: Reference) -> None:
    window = repeating(100, 10)
    result = reference.test(window)
    assert result.replay is not None
    assert result.replay.rows == 9
    assert result.replay.p_value < 1e-6
    assert [(group.rows, group.is_exact) for group in result.replay.groups] == [(10, True)]
    assert len(result.origins) == len(result.row_scores) == 91
    assert {origin.row for origin in result.origins} > set(range(90))
    score = result.to_score(window=WINDOW)
    assert (score.counts.seen, score.counts.tested) == (100, 91)
    assert score.replay == result.replay
    assert WindowScore.model_validate_json(score.model_dump_json()) == score


def test_a_window_with_copies_is_tested_as_its_distinct_rows_alone(reference: Reference) -> None:
    window = repeating(100, 10)
    result = reference.test(window)
    alone = reference.test(window.take(np.array([origin.row for origin in result.origins])))
    assert (alone.p_value, alone.statistic, alone.row_scores) == (result.p_value, result.statistic, result.row_scores)
    assert alone.replay is not None
    assert (alone.replay.rows, alone.replay.p_value, alone.replay.groups) == (0, 1.0, ())


def test_which_copy_is_kept_does_not_depend_on_the_order_of_arrival(reference: Reference) -> None:
    parts = split_frame(repeating(90, 45), [20, 50], ids=[frame_id(i) for i in ("a", "b", "c")])
    first = reference.test(parts)
    for order in itertools.permutations(parts):
        assert reference.test(order) == first
        assert reference.test(order).content_sha256(window=WINDOW, seen=90, k=None) == first.content_sha256(
            window=WINDOW, seen=90, k=None
        )


def test_a_window_of_few_distinct_rows_is_not_tested_but_says_so(reference: Reference) -> None:
    result = reference.test(repeating(60, 60 - MIN_SAMPLES + 2))
    assert (result.status, result.reason) == ("not_tested", "too_few_distinct_rows")
    assert result.replay is not None
    assert result.replay.rows == 60 - MIN_SAMPLES + 1
    assert result.replay.p_value < 1e-6
    score = result.to_score(window=WINDOW)
    assert (score.counts.seen, score.counts.tested, score.joint) == (60, 0, None)
    assert score.replay is not None


def test_just_enough_distinct_rows_are_tested(reference: Reference) -> None:
    assert reference.test(repeating(60, 60 - MIN_SAMPLES + 1)).status == "tested"


def test_a_row_of_the_reference_is_no_replay(reference: Reference) -> None:
    known = reference._artefact.arrays["reference.fc"][:40]
    replay = reference.test(plain_frame({"fc": known})).replay
    assert replay is not None
    assert replay.rows == 0


def test_groups_name_samples_and_clients_within_limits(reference: Reference) -> None:
    values = gaussian_frame(30, 3).layers["fc"][np.repeat(np.arange(30), np.r_[15, [2] * 15, [1] * 14])]
    n = len(values)
    window = plain_frame(
        {"fc": values},
        sample_ids=[f"{i} {'x' * 600}" for i in range(n)],
        client_ids=[f"c{i % 12}" if i % 3 else None for i in range(n)],
    )
    replay = reference.test(window).replay
    assert replay is not None
    assert replay.rows == 14 + 15
    assert len(replay.groups) == TOP_GROUPS
    assert [group.rows for group in replay.groups] == [15, *[2] * 9]
    largest = replay.groups[0]
    assert len(largest.sample_ids) == TOP_LABELS
    assert {int(label.split()[0]) for label in largest.sample_ids} <= set(range(15))
    assert all(len(label) == LABEL_LIMIT for label in largest.sample_ids)
    assert sorted(largest.client_ids) == sorted({f"c{i % 12}" for i in range(15) if i % 3})


# At fit --------------------------------------------------------------------------------------------------------------


def test_a_reference_holds_each_repeated_row_once() -> None:
    values = gaussian_frame(300, 1).layers["fc"]
    values[100:160] = values[7]
    manifest = (fitted := fit_reference([plain_frame({"fc": values})], permutations=99, device="cpu")).manifest
    assert manifest.sizes.excluded_repeated == 60
    assert manifest.sizes.fit + manifest.sizes.reference == 240
    rows = {row.tobytes() for row in fitted._artefact.arrays["reference.fc"]}
    assert len(rows) == manifest.sizes.reference


def test_the_manifest_counts_repetition_in_blocks_of_several_sizes() -> None:
    values = gaussian_frame(300, 1).layers["fc"]
    values[100:104] = values[99]
    manifest = fit_reference([plain_frame({"fc": values})], permutations=99, device="cpu").manifest
    assert [(r.size, r.blocks, r.repeated, r.squares) for r in manifest.repetition] == [
        (32, 9, 4, 16),
        (64, 4, 4, 16),
        (128, 2, 4, 16),
        (256, 1, 4, 16),
    ]


def test_too_few_distinct_rows_make_no_reference() -> None:
    with pytest.raises(ReferenceInvalid, match=r"20 distinct rows to fit on.*of 300 repeat others"):
        fit_reference([plain_frame({"fc": np.ones((300, 4), np.float32)})], device="cpu")


def test_rows_of_each_stratum_are_counted_without_those_fitted_on() -> None:
    frame = class_frame(600, 1, shares=(0.6, 0.39, 0.01))
    manifest = fit_reference([frame], permutations=99, max_reference_rows=100, device="cpu").manifest
    assert len(manifest.stratum_rows) == len(manifest.classes) + 1
    assert sum(manifest.stratum_rows) == manifest.sizes.reference + manifest.sizes.excluded_surplus == 400


def test_blocks_follow_time_and_then_the_file() -> None:
    blocks = blocks_of(np.array([5, 1, 5, 0, 1]), 2)
    assert [block.tolist() for block in blocks] == [[3, 1], [4, 0], [2]]


def test_only_whole_blocks_are_counted() -> None:
    (one,) = count_repetition(np.zeros(50, np.int64), lambda rows: int((rows % 10 == 0).sum()))
    assert (one.size, one.blocks, one.repeated, one.squares) == (32, 1, 4, 16)


# The p-value ---------------------------------------------------------------------------------------------------------


def test_no_repetition_is_no_surprise() -> None:
    assert repetition_p_value(NEVER, 100, 0) == 1.0


def test_p_falls_with_every_repetition_and_is_never_zero() -> None:
    found = [repetition_p_value(NEVER, 500, repeated) for repeated in range(500)]
    assert all(0 < later <= sooner <= 1 for sooner, later in itertools.pairwise(found))
    assert found[499] < 1e-300


def test_it_is_the_tail_of_the_posterior_where_blocks_agree() -> None:
    """One block: nothing is known of how blocks differ, so what remains is Jeffreys' posterior of the rate."""
    natural = (Repetition(size=256, blocks=1, repeated=5, squares=25),)
    expected = 1 - math.fsum(betabinom.pmf(k, 100, 5.5, 251.5) for k in range(4))
    assert repetition_p_value(natural, 100, 4) == pytest.approx(expected, rel=1e-9)


def test_uneven_blocks_make_a_burst_less_surprising() -> None:
    even = (Repetition(size=128, blocks=10, repeated=50, squares=250),)
    uneven = (Repetition(size=128, blocks=10, repeated=50, squares=5 * 100),)
    bursts = (Repetition(size=128, blocks=10, repeated=50, squares=2_500),)
    p = [repetition_p_value(natural, 128, 25) for natural in (even, uneven, bursts)]
    assert p[0] < p[1] < p[2]
    assert p[0] < 1e-6
    assert p[2] > 0.01


def test_a_window_is_held_against_blocks_that_are_not_smaller() -> None:
    natural = (
        Repetition(size=64, blocks=16, repeated=1, squares=1),
        Repetition(size=1024, blocks=1, repeated=100, squares=10_000),
    )
    assert repetition_p_value(natural, 64, 8) < 1e-3
    assert repetition_p_value(natural, 65, 8) > 0.1


def test_a_window_larger_than_every_block_may_repeat_in_proportion() -> None:
    """The rate among the rows of a window grows at most as its size: pairs grow as the square."""
    natural = (Repetition(size=64, blocks=32, repeated=32, squares=60),)
    expected = 640 * (32.5 / 2049) * 639 / 63
    assert repetition_p_value(natural, 640, round(0.8 * expected)) > 0.5
    assert repetition_p_value(natural, 640, round(1.5 * expected)) < 0.01


@pytest.mark.parametrize("repeated", [0, 31])
def test_extreme_blocks_give_numbers(repeated: int) -> None:
    natural = (Repetition(size=32, blocks=4, repeated=4 * repeated, squares=4 * repeated**2),)
    for rows, found in ((20, 19), (32, 31), (5_000, 4_999)):
        assert 0 < repetition_p_value(natural, rows, found) <= 1
