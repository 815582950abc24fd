"""An evaluation says of each attack, layer and source what a plain count over the verdicts says."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score, roc_auc_score
from tests.support.frames import frame_id
from tests.support.labelled import MODEL, judging, labelled, natural_frame

from hydrophone.detectors import Reference
from hydrophone.detectors.evaluation import Evaluation, evaluate
from hydrophone.detectors.evaluation.abstention import naming
from hydrophone.detectors.evaluation.curves import auc, curve, decided, rate
from hydrophone.detectors.evaluation.truth import Truth
from hydrophone.detectors.samples import AttackGuess, SampleVerdicts
from hydrophone.schemas.errors import FrameInvalid, ReferenceInvalid
from hydrophone.schemas.frame import Frame


@pytest.fixture(scope="module")
def reference() -> Reference:
    return judging()


@pytest.fixture(scope="module")
def frame() -> Frame:
    return labelled()


@pytest.fixture(scope="module")
def found(reference: Reference, frame: Frame) -> Evaluation:
    return evaluate([frame.take(np.arange(300)), frame.take(np.arange(300, len(frame)))], reference)


def test_each_attack_is_counted_against_the_natural_rows_alone(
    found: Evaluation, reference: Reference, frame: Frame
) -> None:
    assert reference.samples is not None
    verdicts = reference.samples.judge(frame)
    sources = np.array([name or "natural" for name in frame.attack or ()])
    assert (found.model, found.rows, found.shared_rows) == (MODEL, len(frame), 0)
    assert [report.attack for report in found.attacks] == ["far", "near"], "odd rows are no attack"
    for report in (*found.attacks, found.all_attacks):
        names = ["far", "near"] if report is found.all_attacks else [report.attack]
        meant = np.isin(sources, ["natural", *names])
        truth, flagged = sources[meant] != "natural", verdicts.decision[meant] == 2
        assert report.curve.auc == pytest.approx(roc_auc_score(truth, verdicts.suspicion[meant]))
        assert report.reject.precision == pytest.approx(precision_score(truth, flagged))
        assert report.reject.recall == pytest.approx(recall_score(truth, flagged))
        assert report.flag.recall >= report.reject.recall
        assert report.rows == truth.sum()
    far, near = found.attacks
    assert far.curve.auc > 0.99 > near.curve.auc > 0.55
    assert far.reject.recall > 0.9
    assert far.measures["gate.log_likelihood.late"] == pytest.approx(1, abs=0.02), "whichever way it points"


def test_each_source_is_told_apart_by_decisions_gate_and_layers(found: Evaluation) -> None:
    by_name = {source.source: source for source in found.sources}
    assert list(by_name) == ["natural", "odd", "far", "near"]
    assert [by_name[name].is_hostile for name in by_name] == [False, False, True, True]
    for source in found.sources:
        assert source.accepted.count + source.abstained.count + source.rejected.count == source.rows
    natural, odd, far = by_name["natural"], by_name["odd"], by_name["far"]
    assert natural.gate_accepts["(all)"].low is not None
    assert natural.gate_accepts["(all)"].low < 0.95 < (natural.gate_accepts["(all)"].high or 0)
    assert natural.gate_accepts["late"].share == pytest.approx(0.95, abs=0.05)
    assert (odd.gate_accepts["late"].share, odd.gate_accepts["early"].share) == pytest.approx((0.95, 0.0), abs=0.06)
    assert odd.gate_accepts["(all)"].share == pytest.approx(0, abs=0.02)
    assert far.gate_accepts["late"].share == pytest.approx(0, abs=0.05)
    assert far.layers["late"] == 1.0
    assert far.layers["early"] is not None
    assert far.layers["early"] < 0.3
    assert natural.detection_rate is not None
    assert natural.detection_rate < 0.3
    assert far.window_p_value == pytest.approx(1 / 100)


def test_natural_rows_keep_the_levels_and_abstaining_is_weighed(found: Evaluation) -> None:
    for level in found.levels:
        assert level.natural.rows == 400
        assert level.natural.low is not None
        slack = 3 * np.sqrt(level.level * (1 - level.level) * (1 / 400 + 1 / 400))
        assert abs((level.natural.share or 0) - level.level) < slack + 1 / 400
    weighed = found.abstention
    assert weighed.decided.rows == 800
    assert weighed.right.rows == weighed.decided.count
    assert (weighed.right.share or 0) > 0.6
    assert found.naming is None, "no attack was known at fitting"


def test_the_picture_shows_both_sides_of_every_class_the_same_each_time(
    found: Evaluation, reference: Reference, frame: Frame
) -> None:
    assert found.picture is not None
    assert found.picture.layer == "late"
    assert [panel.predicted for panel in found.picture.panels] == [0, 1, 2]
    for panel in found.picture.panels:
        assert len(panel.xy) == len(panel.sources) == len(panel.is_hostile) == 120
        assert sum(panel.is_hostile) == 60
        assert {source for source, hostile in zip(panel.sources, panel.is_hostile, strict=True) if hostile} <= {
            "far",
            "near",
        }
    assert evaluate([frame], reference).picture == found.picture


def test_rows_of_the_reference_itself_are_counted_and_told(reference: Reference) -> None:
    own = natural_frame(300, 0)
    mixed = [replace(own, label=np.zeros(300, int)), replace(natural_frame(60, 9, late=3.0), label=np.ones(60, int))]
    found = evaluate(mixed, reference, with_picture=False)
    assert found.shared_rows > 100
    assert [report.attack for report in found.attacks] == ["unnamed"]
    assert found.picture is None


def test_what_could_not_be_judged_is_counted(reference: Reference, frame: Frame) -> None:
    broken = frame.take(np.arange(len(frame)))
    broken.layers["late"][3] = np.nan
    found = evaluate([broken], reference, with_picture=False)
    assert found.reasons["not_finite:layer.late"] == 1


def test_what_cannot_be_evaluated_is_refused(reference: Reference, frame: Frame) -> None:
    with pytest.raises(FrameInvalid, match="some lack it"):
        evaluate([natural_frame(30, 3)], reference)
    with pytest.raises(FrameInvalid, match="0 natural, 1 adversarial"):
        evaluate([replace(frame, label=np.full(len(frame), 7))], reference)
    with pytest.raises(FrameInvalid, match=r"got 1000 and 0"):
        evaluate([replace(frame, label=np.zeros(len(frame), int), attack=None)], reference)
    plain = Reference.__new__(Reference)
    plain.__dict__.update(reference.__dict__ | {"samples": None})
    with pytest.raises(ReferenceInvalid, match="no per-sample detectors"):
        evaluate([frame], plain)


def test_shuffled_truth_is_worth_nothing(reference: Reference, frame: Frame) -> None:
    order = np.random.default_rng(0).permutation(len(frame))
    names = [(frame.attack or [])[row] for row in order]
    shuffled = replace(frame, label=(frame.label if frame.label is not None else order)[order], attack=names)
    found = evaluate([shuffled], reference, with_picture=False)
    assert found.all_attacks.curve.auc == pytest.approx(0.5, abs=0.06)


# The parts


def test_rates_have_intervals_and_nothing_has_none() -> None:
    assert rate(0, 0).share is None
    some = rate(5, 100)
    assert some.share == 0.05
    assert some.low is not None
    assert some.low < 0.05 < (some.high or 0)


def test_a_curve_counts_rows_without_a_score_as_the_least_suspicious() -> None:
    scores = np.array([0.1, 0.2, np.nan, 0.9])
    positive = np.array([False, False, True, True])
    made = curve(scores, positive)
    assert (made.auc, made.unknown, made.positives, made.negatives) == (0.5, 1, 2, 2)
    assert made.false_positive_rates[0] == made.true_positive_rates[0] == 0
    assert made.false_positive_rates[-1] == made.true_positive_rates[-1] == 1
    assert auc(scores, positive) == 1.0
    assert auc(scores, np.zeros(4, bool)) is None
    nothing = decided(np.zeros(4, bool), positive)
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, 0.0, 0.0)


def test_names_are_weighed_where_attacks_were_known() -> None:
    frame = Frame(
        MODEL,
        {"late": np.zeros((6, 1), np.float32)},
        event_time_ms=np.array(0),
        frame_id=frame_id("named"),
        label=np.array([0, 0, 1, 1, 1, 1]),
        attack=[None, None, "fgsm", "pgd", "pgd", "new"],
    )
    guesses = [
        None,
        AttackGuess("one-step", 0.9, "fgsm", 0.8),
        AttackGuess("one-step", 0.95, "fgsm", 0.9),
        AttackGuess("one-step", 0.65, None, 0.4),
        AttackGuess(None, 0.4, None, 0.3),
        AttackGuess("iterated", 0.9, "pgd", 0.9),
    ]
    n = len(guesses)
    verdicts = SampleVerdicts(
        np.full(n, 2, np.int8), np.ones(n, np.float32), np.ones(n, np.float32), {}, guesses, [()] * n
    )
    found = naming(verdicts, Truth.of([frame]), {"fgsm": "one-step", "pgd": "iterated"})
    assert found is not None
    assert (found.families_named.count, found.families_named.rows) == (2, 3), "natural and unknown ones left out"
    assert (found.families_right.count, found.attacks_right.count, found.attacks_right.rows) == (1, 1, 1)
    bins = {(share.low, share.high): share.right.count for share in found.reliability if share.right.rows}
    assert bins == {(0.6, 0.7): 0, (0.9, 1.0): 1}
