"""Bad input has a named reason in the verdict: never a crash, never a silent default."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from tests.support.samples import natural

from hydrophone.detectors.samples import ABSTAIN, ACCEPT, REJECT, SampleDetectors, SampleVerdicts, fit_samples
from hydrophone.schemas.frame import Frame


def changed(frame: Frame, **parts: Any) -> Frame:
    known = {part.name: getattr(frame, part.name) for part in fields(frame)} | parts
    return Frame(known.pop("model"), known.pop("layers"), **known)


def test_clean_rows_are_rejected_and_abstained_on_as_often_as_stated(plain: SampleDetectors) -> None:
    """300 calibration rows: the share below a level has a deviation of .0057 at .01 and .0126 at .05."""
    verdicts = plain.judge(natural(4_000, 11))
    assert abs((verdicts.decision == REJECT).mean() - 0.01) < 4 * 0.006
    assert abs(verdicts.flagged.mean() - 0.05) < 4 * 0.0135
    assert (verdicts.p_value > 0).all()
    assert set(verdicts.reasons) == {()}


def test_decisions_follow_the_p_values(plain: SampleDetectors) -> None:
    found = plain.judge(natural(500, 12, shift=0.3))
    expected = np.where(found.p_value <= 0.01, REJECT, np.where(found.p_value <= 0.05, ABSTAIN, ACCEPT))
    assert (found.decision == expected).all()
    assert (np.argsort(found.suspicion, kind="stable") == np.argsort(-found.p_value, kind="stable")).mean() > 0
    assert all(guess is None for guess in found.attacks), "no attack was known at fitting"


def test_rows_pushed_off_their_class_are_suspicious(plain: SampleDetectors, learnt: SampleDetectors) -> None:
    for detectors in (plain, learnt):
        assert detectors.judge(natural(300, 13, shift=1.0)).flagged.mean() > 0.6


def test_a_frame_is_judged_row_by_row(plain: SampleDetectors) -> None:
    frame = natural(40, 14)
    whole = plain.judge(frame)
    parts = [plain.judge(frame.take(np.array([row]))) for row in range(len(frame))]
    np.testing.assert_allclose(whole.suspicion, [part.suspicion[0] for part in parts], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"uncertainty": None}, "missing_tensor:uncertainty.variance"),
        ({"output": None, "predicted": np.zeros(4, int)}, "missing_tensor:output"),
        ({"output": None}, "missing_tensor:predicted"),
        ({"output": np.full((4, 7), 1 / 7, np.float32)}, "wrong_dimension:output"),
        ({"layers": {"late": np.zeros((4, 20), np.float32)}}, "missing_tensor:layer.early"),
        (
            {"layers": {"late": np.zeros((4, 21), np.float32), "early": np.zeros((4, 8), np.float32)}},
            "wrong_dimension:layer.late",
        ),
        ({"model": "another"}, "wrong_model:another"),
    ],
)
def test_what_a_frame_lacks_is_named_in_every_row(
    plain: SampleDetectors, learnt: SampleDetectors, parts: dict[str, Any], reason: str
) -> None:
    frame = changed(natural(4, 15), **parts)
    for detectors in (plain, learnt):
        verdicts = detectors.judge(frame)
        _check_shapes(verdicts, 4)
        assert all(reason in reasons for reasons in verdicts.reasons)


def test_a_row_that_is_not_finite_spoils_no_other(plain: SampleDetectors) -> None:
    frame = natural(5, 16)
    late, output = frame.layers["late"].copy(), np.array(frame.output)
    late[1, 3], output[3, 0] = np.nan, np.inf
    verdicts = plain.judge(changed(frame, layers={**frame.layers, "late": late}, output=output))
    clean = plain.judge(frame)
    untouched = [0, 2, 4]
    np.testing.assert_array_equal(verdicts.p_value[untouched], clean.p_value[untouched])
    assert [verdicts.reasons[row] for row in untouched] == [()] * 3
    assert verdicts.reasons[1] == ("not_finite:layer.late",)
    assert "not_finite:output" in verdicts.reasons[3]
    assert np.isnan(verdicts.scores["closeness.kde"][1])
    assert not np.isnan(verdicts.p_value).any(), "other layers still rank these rows"


def test_values_that_overflow_a_sum_are_judged(plain: SampleDetectors) -> None:
    frame = natural(3, 17)
    late = frame.layers["late"].copy()
    late[0], late[1, 0] = np.finfo(np.float32).max, -np.finfo(np.float32).max
    verdicts = plain.judge(changed(frame, layers={**frame.layers, "late": late}))
    _check_shapes(verdicts, 3)
    assert (verdicts.decision[:2] == REJECT).all()
    assert list(verdicts.reasons) == [("out_of_range:layer.late",)] * 2 + [()]
    assert not any(np.isnan(values).any() for values in verdicts.scores.values())


def test_a_class_never_seen_is_named(plain: SampleDetectors) -> None:
    frame = changed(natural(3, 18), predicted=np.array([0, 7, -2]))
    reasons = plain.judge(frame).reasons
    assert [[r for r in found if r.startswith("unseen")] for found in reasons] == [
        [],
        ["unseen_class:7"],
        ["unseen_class:-2"],
    ]


def test_with_nothing_to_judge_by_it_abstains(plain: SampleDetectors) -> None:
    frame = natural(2, 19)
    strange = Frame(frame.model, {"other": np.zeros((2, 3), np.float32)}, event_time_ms=frame.event_time_ms)
    verdicts = plain.judge(strange)
    assert (verdicts.decision == ABSTAIN).all()
    assert np.isnan(verdicts.suspicion).all()
    assert np.isnan(verdicts.p_value).all()


def test_a_measure_that_was_constant_at_fitting_ranks_nothing_and_says_so() -> None:
    fit = natural(1_200, 1)
    still = {**(fit.uncertainty or {}), "variance": np.zeros(1_200)}
    fitted = fit_samples([changed(fit, uncertainty=still)], embedding="late", device="cpu")
    assert fitted.manifest.constant == ("uncertainty.variance",)
    verdicts = fitted.judge(natural(2, 2))
    assert verdicts.reasons == [("constant_at_fit:uncertainty.variance",)] * 2
    assert "uncertainty.variance" in verdicts.scores


def test_p_values_hold_for_rows_that_lack_a_measure(plain: SampleDetectors) -> None:
    """They rank among calibration rows judged without it, so the level stays."""
    frame = changed(natural(3_000, 20), uncertainty=None, output=None, predicted=natural(3_000, 20).classes())
    assert abs(plain.judge(frame).flagged.mean() - 0.05) < 4 * 0.0135


def test_half_precision_is_read(plain: SampleDetectors) -> None:
    frame = natural(50, 21)
    halves = changed(frame, layers={name: values.astype(np.float16) for name, values in frame.layers.items()})
    np.testing.assert_allclose(plain.judge(halves).p_value, plain.judge(frame).p_value, atol=0.05)


def _check_shapes(verdicts: SampleVerdicts, rows: int) -> None:
    for array in (verdicts.decision, verdicts.suspicion, verdicts.p_value, *verdicts.scores.values()):
        assert array.shape == (rows,)
    assert len(verdicts) == len(verdicts.attacks) == len(verdicts.reasons) == rows
