"""A closed window gets one score, the same on every replay; what cannot be tested is said not to be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.processor import WIDTH, small_reference

from hydrophone.detectors import Reference
from hydrophone.detectors.finite_reference import shared_variance
from hydrophone.detectors.sequential import NO_EVIDENCE, accumulate
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.origins import Origin
from hydrophone.schemas.score import Counts
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.evidence import EvidenceStore
from hydrophone.streams.judge import Judge, SampleRules

MODEL = "m"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference.load(small_reference(tmp_path_factory.mktemp("reference"), MODEL), device="cpu")


def judge_with(*pinned: Reference, evidence: Path | None = None) -> Judge:
    return Judge(
        ReferenceCatalog(pinned),
        topic="t",
        sample=SampleRules(64, "key-id"),
        false_alarms_per_month=5_000,
        window_ms=60_000,
        evidence=EvidenceStore(evidence.as_uri()) if evidence else None,
        config_sha256="e" * 64,
    )


def closed(rows: int = 40, *, shift: float = 0.0, end: int = 60_000, **parts: Any) -> WindowClosed:
    rng = np.random.default_rng(8)
    values = (rng.standard_normal((rows, WIDTH)) + shift).astype(np.float32)
    name = "123e4567-e89b-12d3-a456-426614174000"
    frame = Frame(
        MODEL,
        parts.pop("layers", {"fc": values}),
        event_time_ms=np.array(end - 1),
        frame_id=name,
        origins=[Origin(name, row, 2, 5) for row in range(rows)],
        **parts,
    )
    return WindowClosed(MODEL, end - 60_000, end, 2, 5, 9, Counts(seen=90, tested=rows, rejected=1), frame, ())


def test_score_is_that_of_the_reference_on_the_sampled_rows(reference: Reference) -> None:
    window = closed()
    score = judge_with(reference).judge(window, None, "00-trace").score

    assert window.sample is not None
    result = reference.test(window.sample)
    assert score.joint is not None
    assert (score.status, score.joint.p_value, score.joint.statistic) == ("tested", result.p_value, result.statistic)
    assert score.content_sha256 == result.content_sha256(window=score.window, seen=90, k=64)
    assert (score.counts.seen, score.counts.tested, score.counts.rejected) == (90, 40, 1)
    assert (score.k, score.sampling_key_id, score.config_sha256) == (64, "key-id", "e" * 64)
    assert score.source is not None
    assert (score.source.topic, score.source.partition) == ("t", 2)
    assert (score.source.first_offset, score.source.close_offset) == (5, 9)
    assert score.trace is not None


def test_same_window_gets_the_same_judgement_again(reference: Reference) -> None:
    first, second = (judge_with(reference).judge(closed(shift=2.0), None, None) for _ in range(2))
    assert first == second


def test_rejecting_window_keeps_its_evidence_and_another_does_not(reference: Reference, tmp_path: Path) -> None:
    judge = judge_with(reference, evidence=tmp_path)

    assert judge.judge(closed(), None, None).score.evidence is None
    score = judge.judge(closed(shift=3.0), None, None).score

    assert score.rejected
    assert score.evidence is not None
    evidence = Frame.decode(Path(score.evidence.uri.removeprefix("file://")).read_bytes())
    again = reference.test(evidence)
    assert score.joint is not None
    assert again.p_value == score.joint.p_value
    assert score.content_sha256 == again.content_sha256(window=score.window, seen=score.counts.seen, k=64)


def test_alert_comes_with_the_memory_it_was_decided_by(reference: Reference) -> None:
    judge = judge_with(reference)
    state, alerts = None, []
    for number in range(1, 7):
        judgement = judge.judge(closed(shift=3.0, end=number * 60_000), state, None)
        state = judgement.state
        if judgement.alert:
            alerts.append(judgement.alert)
            assert judgement.alert.score_id == judgement.score.id

    assert alerts
    assert state is not None
    assert (state.model, state.last_end_ms, state.reference_sha256) == (MODEL, 360_000, reference.id.sha256)


@pytest.mark.parametrize(
    ("window", "is_known", "reason"),
    [
        (closed(), False, "no_reference"),
        (WindowClosed(MODEL, 0, 60_000, 0, 0, 1, Counts(seen=0, tested=0), None, ()), True, "no_rows"),
        (closed(5), True, "too_few_rows"),
        (closed(layers={"gc": np.zeros((40, WIDTH), np.float32)}), True, "missing_tensor:layer.fc"),
        (closed(layers={"fc": np.zeros((40, WIDTH + 1), np.float32)}), True, "wrong_dimension"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_tested_says_why_and_neither_passes_nor_alarms(
    reference: Reference, window: WindowClosed, is_known: bool, reason: str
) -> None:
    judgement = judge_with(*([reference] if is_known else [])).judge(window, None, None)

    score = judgement.score
    assert (score.status, score.reason, score.joint) == ("not_tested", reason, None)
    assert not score.rejected
    assert score.counts.tested == 0
    assert score.counts.seen == window.counts.seen
    assert (judgement.alert, judgement.state) == (None, None)


def test_untested_window_leaves_the_models_memory_alone(reference: Reference) -> None:
    judge = judge_with(reference)
    state = judge.judge(closed(shift=3.0), None, None).state
    assert judge.judge(closed(5, end=120_000), state, None).state is state


@pytest.mark.parametrize("value", [3e38, -3e38, 1e-45])
def test_extreme_but_finite_values_get_a_p_value(reference: Reference, value: float) -> None:
    values = np.random.default_rng(8).standard_normal((40, WIDTH)).astype(np.float32)
    values[:, :-1] = value
    score = judge_with(reference).judge(closed(layers={"fc": values}), None, None).score

    assert score.joint is not None
    assert 0 < score.joint.p_value <= 1


def test_a_window_of_one_row_sent_again_and_again_is_untested_and_says_why(reference: Reference) -> None:
    layers = {"fc": np.full((40, WIDTH), 0.5, np.float32)}
    judgement = judge_with(reference).judge(closed(layers=layers), None, None)

    score = judgement.score
    assert (score.status, score.reason, score.counts.tested) == ("not_tested", "too_few_distinct_rows", 0)
    assert score.replay is not None
    assert score.replay.rows == 39
    assert score.replay.p_value < 1e-6
    assert judgement.alert is not None
    assert [rule.name for rule in judgement.alert.rules] == ["replay"]


def test_label_of_any_length_does_not_make_a_score_of_any_size(reference: Reference) -> None:
    labels = ["x" * 900_000] * 40
    score = judge_with(reference).judge(closed(shift=3.0, sample_ids=labels, client_ids=labels), None, None).score

    assert score.suspects
    assert len(score.model_dump_json()) < 50_000


def test_evidence_over_time_allows_for_the_size_of_the_reference(reference: Reference) -> None:
    judgement = judge_with(reference).judge(closed(), None, None)
    assert judgement.alert is None

    score, state = judgement.score, judgement.state
    assert score.joint is not None
    assert state is not None
    rows = reference.manifest.sizes.reference
    shared = shared_variance(score.calibration, tested=score.effective_rows, reference_rows=rows)
    assert shared > 0.05
    assert state.sequential == accumulate(NO_EVIDENCE, score.joint.p_value, shared=shared)
