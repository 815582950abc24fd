"""Window scores as the files of a SageMaker Model Monitor job. Pure: text in memory; files are the caller's.

    constraint_violations.json   one entry for each layer that made a window different (AWS's schema), or, in the
                                 `reference` layout, one for each suspect, as the layer-wise method's sample code has it
    cloudwatch_metrics.jsonl     that code's three metrics, one JSON object a line
    message                      `CompletedWithViolations: ...` or `Completed: ...`

Schemas: docs.aws.amazon.com/sagemaker, "Schema for Violations" and "CloudWatch Metrics for Bring Your Own Containers".
A violation is a rejecting window, whatever its detection rate: the rate has no null of its own.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from hydrophone.schemas.score import Suspect, WindowScore

__all__ = [
    "BASELINE_RATE",
    "DETECTION_RATE",
    "MESSAGE",
    "METRICS",
    "REQUESTS",
    "VIOLATIONS",
    "Layout",
    "constraint_violations",
    "job_files",
    "message",
    "metric_lines",
]

VIOLATIONS: Final = "constraint_violations.json"
METRICS: Final = "cloudwatch_metrics.jsonl"
MESSAGE: Final = "message"

BASELINE_RATE: Final = "LADIS Baseline Detection Rate"
DETECTION_RATE: Final = "LADIS Detection Rate"
REQUESTS: Final = "Inference requests processed"

Layout = Literal["aws", "reference"]

FEATURE: Final = "Adversarial samples"
"""What the sample code calls every violation."""

CHECK: Final = "baseline_drift_check"
"""Of the check types AWS knows, the one that says: the distribution is not the baseline's."""

SUSPECTS_TOLD: Final = 3


def job_files(
    scores: Sequence[WindowScore], *, schedule: str, endpoint: str | None = None, layout: Layout = "aws"
) -> dict[str, str]:
    """File name to text. `endpoint` None: each score's model."""
    violations = json.dumps(constraint_violations(scores, layout=layout), indent=2, ensure_ascii=False) + "\n"
    lines = "".join(line + "\n" for line in metric_lines(scores, schedule=schedule, endpoint=endpoint))
    return {VIOLATIONS: violations, METRICS: lines, MESSAGE: message(scores) + "\n"}


def constraint_violations(scores: Sequence[WindowScore], *, layout: Layout = "aws") -> dict[str, list[dict[str, Any]]]:
    """`aws`: windows in the order given, the layer that carried a window first. `reference`: most suspicious first."""
    rejecting = [score for score in scores if score.rejected]
    if layout == "aws":
        return {"violations": [violation for score in rejecting for violation in _by_layer(score)]}
    suspects = sorted((s for score in rejecting for s in score.suspects), key=lambda s: s.score, reverse=True)
    return {"violations": [{"feature_name": FEATURE, "description": _step(suspect)} for suspect in suspects]}


def metric_lines(scores: Sequence[WindowScore], *, schedule: str, endpoint: str | None = None) -> Iterator[str]:
    """Each metric of each window, one JSON object a line; rates in per cent, and none where a score holds none."""
    for score in scores:
        shared = {
            "Timestamp": _instant(score.window.end_ms),
            "Dimensions": [
                {"Name": "Endpoint", "Value": endpoint or score.model},
                {"Name": "MonitoringSchedule", "Value": schedule},
            ],
        }
        rates = ((BASELINE_RATE, score.baseline_detection_rate), (DETECTION_RATE, score.detection_rate))
        for name, rate in rates:
            if rate is not None:  # a rate of 0 is a rate
                yield json.dumps({"MetricName": name, **shared, "Value": round(100 * rate, 6), "Unit": "Percent"})
        yield json.dumps({"MetricName": REQUESTS, **shared, "Value": float(score.counts.seen), "Unit": "Count"})


def message(scores: Sequence[WindowScore]) -> str:
    """What the job exits with; Model Monitor reads the word before the colon."""
    tested = [score for score in scores if score.status == "tested"]
    rejecting = [score for score in tested if score.rejected]
    untested = f", {len(scores) - len(tested)} not tested" if len(tested) < len(scores) else ""
    if not rejecting:
        return f"Completed: no difference found in {len(tested)} windows{untested}."
    first = _instant(rejecting[0].window.start_ms)
    return (
        f"CompletedWithViolations: {len(rejecting)} of {len(tested)} windows differ from the reference{untested}; "
        f"adversarial inputs suspected from {first}."
    )


def _by_layer(score: WindowScore) -> Iterator[dict[str, Any]]:
    """The layers whose adjusted p-value is at most alpha. The one that carried a rejecting window always is."""
    carried = score.branch.layer if score.branch else None
    found = [name for name, layer in score.layers.items() if layer.p_adjusted <= score.alpha or name == carried]
    for name in sorted(found, key=lambda name: (name != carried, score.layers[name].p_adjusted)):
        yield {"feature_name": name, "constraint_check_type": CHECK, "description": _description(score, name)}


def _description(score: WindowScore, name: str) -> str:
    layer, window = score.layers[name], score.window
    rate, baseline = score.detection_rate, score.baseline_detection_rate
    found = (
        f"{score.model}, {_instant(window.start_ms)} to {_instant(window.end_ms)}: layer {name} differs from the "
        f"reference, p = {layer.p_adjusted:.4g} adjusted over all layers, at alpha {score.alpha:g}, "
        f"{score.counts.tested} of {score.counts.seen} requests tested"
    )
    parts = [found]
    if rate is not None:
        beside = "" if baseline is None else f" (baseline {baseline:.0%})"
        parts.append(f"detection rate {rate:.0%}{beside}")
    told = ", ".join(f"{_identity(suspect)} ({suspect.score:.3g})" for suspect in score.suspects[:SUSPECTS_TOLD])
    if told:
        parts.append(f"most suspicious: {told}")
    return "; ".join([*parts, f"score {score.id}"])


def _step(suspect: Suspect) -> dict[str, Any]:
    """`Step` led back to a stored input, one request each: here the record's offset, or the row without a topic."""
    return {"Step": suspect.row if suspect.offset is None else suspect.offset, "Score": suspect.score}


def _identity(suspect: Suspect) -> str:
    return suspect.sample_id or f"row {suspect.row} of frame {suspect.frame_id}"


def _instant(at_ms: int) -> str:
    """UTC, to the second, as CloudWatch writes it."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
