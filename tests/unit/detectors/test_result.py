"""From a result to its event: ids and hashes name what was tested, not what came out of it."""

import dataclasses

import pytest
from tests.support.events import TRACEPARENT
from tests.support.frames import class_frame, frame_id, gaussian_frame

from hydrophone.detectors import WindowResult, fit_reference
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.origins import Origin
from hydrophone.schemas.score import Counts, Evidence, Source, Trace, WindowScore

WINDOW = WindowBounds(start_ms=0, end_ms=60_000)
SOURCE = Source(topic="activations", partition=2, first_offset=10, close_offset=20)


@pytest.fixture(scope="module")
def tested() -> WindowResult:
    reference = fit_reference([class_frame(300, 1, shares=(0.6, 0.4))], permutations=99, device="cpu")
    return reference.test(class_frame(40, 2, shares=(0.6, 0.4), shift=2.0, sample_ids=[f"s{i}" for i in range(40)]))


def test_a_score_tells_what_the_result_tells(tested: WindowResult) -> None:
    score = tested.to_score(window=WINDOW)
    assert score.joint is not None
    assert (score.joint.p_value, score.joint.statistic) == (tested.p_value, tested.statistic)
    assert score.rejected is tested.rejected is True
    assert score.counts == Counts(seen=40, tested=40)
    assert score.layers["fc"].p_adjusted == tested.layers["fc"].p_adjusted
    assert score.strata is not None
    assert sum(score.strata.rows.values()) == score.effective_rows == 40
    assert score.suspects[0].sample_id == tested.suspects[0].sample_id
    assert (score.permutations, score.nominal_alpha, score.calibration) == (99, 0.05, "stratified")
    assert score.alpha == tested.alpha <= 0.05
    assert WindowScore.model_validate_json(score.model_dump_json()) == score


def test_the_shell_adds_what_only_it_knows(tested: WindowResult) -> None:
    evidence, trace, counts = (
        Evidence(uri="file:///x", sha256="a" * 64),
        Trace(traceparent=TRACEPARENT),
        Counts(seen=70, tested=40),
    )
    score = tested.to_score(
        window=WINDOW,
        source=SOURCE,
        trace=trace,
        counts=counts,
        k=40,
        sampling_key_id="k1",
        evidence=evidence,
        config_sha256="b" * 64,
    )
    assert (score.source, score.trace, score.counts, score.evidence) == (SOURCE, trace, counts, evidence)
    assert (score.k, score.sampling_key_id, score.config_sha256) == (40, "k1", "b" * 64)


def test_ids_and_hash_are_the_same_on_every_run(tested: WindowResult) -> None:
    one, again = tested.to_score(window=WINDOW), tested.to_score(window=WINDOW)
    assert one.id == again.id
    assert one.content_sha256 == again.content_sha256


def test_the_hash_does_not_depend_on_what_came_out(tested: WindowResult) -> None:
    other = dataclasses.replace(
        tested, p_value=0.5, statistic=0.0, e_value=1.0, device="cuda:0", layers={}, suspects=()
    )
    one = tested.to_score(window=WINDOW)
    two = other.to_score(window=WINDOW, source=SOURCE, trace=Trace(traceparent=TRACEPARENT), config_sha256="b" * 64)
    assert one.content_sha256 == two.content_sha256
    assert one.id == two.id


def test_the_hash_depends_on_everything_that_was_tested(tested: WindowResult) -> None:
    def digest(result: WindowResult = tested, *, start_ms: int = 0, seen: int = 40, k: int | None = None) -> str:
        return result.content_sha256(window=WindowBounds(start_ms=start_ms, end_ms=60_000), seen=seen, k=k)

    other_reference = tested.reference.model_copy(update={"sha256": "f" * 64})
    changed = [
        digest(start_ms=1),
        digest(seen=41),
        digest(k=40),
        digest(dataclasses.replace(tested, model="other")),
        digest(dataclasses.replace(tested, reference=other_reference)),
        digest(dataclasses.replace(tested, seed=tested.seed + 1)),
        digest(dataclasses.replace(tested, origins=tested.origins[1:])),
        digest(dataclasses.replace(tested, origins=(Origin(frame_id("other"), 0), *tested.origins[1:]))),
    ]
    assert len({digest(), *changed}) == 1 + len(changed)


def test_a_record_at_another_offset_holds_the_same_row(tested: WindowResult) -> None:
    moved = tuple(dataclasses.replace(origin, partition=5, offset=9) for origin in tested.origins)
    assert dataclasses.replace(tested, origins=moved).content_sha256(
        window=WINDOW, seen=40, k=None
    ) == tested.content_sha256(window=WINDOW, seen=40, k=None)


def test_a_suspect_says_where_its_record_stands_if_that_is_known(tested: WindowResult) -> None:
    unknown = tested.to_score(window=WINDOW, source=SOURCE).suspects[0]
    assert (unknown.topic, unknown.partition, unknown.offset) == (None, None, None)
    first = dataclasses.replace(tested.suspects[0], origin=Origin(frame_id(2), 1, partition=2, offset=11))
    known = dataclasses.replace(tested, suspects=(first,)).to_score(window=WINDOW, source=SOURCE).suspects[0]
    assert (known.topic, known.partition, known.offset) == ("activations", 2, 11)


def test_a_window_that_was_not_tested_says_so_and_neither_passes_nor_rejects() -> None:
    reference = fit_reference([gaussian_frame(90, 1)], permutations=99, device="cpu")
    score = reference.test(gaussian_frame(5, 2)).to_score(window=WINDOW)
    assert (score.status, score.reason) == ("not_tested", "too_few_rows")
    assert score.joint is None
    assert not score.rejected
    assert score.counts == Counts(seen=5, tested=0)
    assert score.layers == {}
    assert WindowScore.model_validate_json(score.model_dump_json()) == score
    assert score.id != reference.test(gaussian_frame(5, 2)).to_score(window=WindowBounds(start_ms=1, end_ms=2)).id


@pytest.mark.parametrize(("p_value", "rejected"), [(0.05, True), (0.051, False), (None, False)])
def test_a_window_rejects_at_the_level_and_below(
    tested: WindowResult, p_value: float | None, *, rejected: bool
) -> None:
    assert dataclasses.replace(tested, p_value=p_value, alpha=0.05).rejected is rejected
