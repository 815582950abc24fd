"""Scores as the files of a Model Monitor job: AWS's schema, the sample code's own shape, its three metrics."""

import json
import uuid
from typing import Any

import pytest
from tests.support.events import SCORE, window_score
from tests.support.frames import MODEL, T0, frame_id

from hydrophone.schemas.sagemaker import constraint_violations, job_files, message, metric_lines
from hydrophone.schemas.score import LayerScore, Suspect, WindowScore

AT = "2023-11-14T22:14:20Z"
"""The end of `SCORE`'s window."""


def rated(score: WindowScore = SCORE, **values: Any) -> WindowScore:
    return score.model_copy(update={"detection_rate": 0.87, "baseline_detection_rate": 0.05} | values)


def clean(start_ms: int = T0) -> WindowScore:
    return window_score(start_ms=start_ms, p_value=0.5).model_copy(update={"rejected": False})


def suspect(row: int, score: float, offset: int | None = None) -> Suspect:
    return Suspect(row=row, frame_id=uuid.UUID(frame_id(row)), score=score, offset=offset)


def test_a_violation_has_the_three_strings_of_the_schema() -> None:
    [violation] = constraint_violations([clean(), rated()])["violations"]
    assert set(violation) == {"feature_name", "constraint_check_type", "description"}
    assert all(isinstance(value, str) for value in violation.values())
    assert (violation["feature_name"], violation["constraint_check_type"]) == ("fc", "baseline_drift_check")
    for told in (MODEL, AT, "0.002", "256 of 300", "87%", "5%", "request 17", str(SCORE.id)):
        assert told in violation["description"]


def test_layers_that_differ_are_told_and_the_one_that_carried_the_window_first() -> None:
    layers = {
        name: LayerScore(mmd2=0.1, statistic=1.0, p_value=p, p_adjusted=p)
        for name, p in {"conv": 0.01, "dense": 0.2, "fc": 0.04}.items()
    }
    found = constraint_violations([rated(layers=layers)])["violations"]
    assert [violation["feature_name"] for violation in found] == ["fc", "conv"]


def test_the_sample_codes_shape_has_a_step_and_a_score_for_each_suspect() -> None:
    one = rated(suspects=(suspect(3, 0.5, offset=41), suspect(4, 0.1, offset=42)))
    two = rated(suspects=(suspect(7, 0.75),))
    found = constraint_violations([one, clean(), two], layout="reference")["violations"]
    assert found == [
        {"feature_name": "Adversarial samples", "description": {"Step": step, "Score": score}}
        for step, score in ((7, 0.75), (41, 0.5), (42, 0.1))
    ]


def test_the_three_metrics_have_their_names_dimensions_and_units() -> None:
    lines = [json.loads(line) for line in metric_lines([rated()], schedule="hourly")]
    assert [(line["MetricName"], line["Value"], line["Unit"]) for line in lines] == [
        ("LADIS Baseline Detection Rate", 5.0, "Percent"),
        ("LADIS Detection Rate", 87.0, "Percent"),
        ("Inference requests processed", 300.0, "Count"),
    ]
    for line in lines:
        assert line["Timestamp"] == AT
        assert line["Dimensions"] == [
            {"Name": "Endpoint", "Value": MODEL},
            {"Name": "MonitoringSchedule", "Value": "hourly"},
        ]
    assert '"Value": "mine"' in next(iter(metric_lines([rated()], schedule="hourly", endpoint="mine")))


def test_a_score_without_a_rate_has_no_rate_metric() -> None:
    assert [json.loads(line)["MetricName"] for line in metric_lines([clean()], schedule="s")] == [
        "Inference requests processed"
    ]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], "Completed: no difference found in 0 windows."),
        ([clean(), window_score(start_ms=T0, p_value=None).model_copy(update={"rejected": False})], "Completed: "),
        ([clean(), SCORE], "CompletedWithViolations: 1 of 2 windows differ"),
    ],
)
def test_the_message_says_in_its_first_word_whether_there_are_violations(
    scores: list[WindowScore], expected: str
) -> None:
    assert message(scores).startswith(expected)


def test_the_files_are_what_the_parts_are() -> None:
    files = job_files([rated(), clean()], schedule="s", layout="reference")
    assert set(files) == {"constraint_violations.json", "cloudwatch_metrics.jsonl", "message"}
    assert json.loads(files["constraint_violations.json"]) == constraint_violations([rated()], layout="reference")
    assert len(files["cloudwatch_metrics.jsonl"].splitlines()) == 4
