"""What is said of a closed window once its score is committed: one canonical line and the instruments.

Not before: a window that is tested again after a failed commit was tested once, as far as anybody is told.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hydrophone.streams.judge import Judgement
from hydrophone.streams.telemetry import Telemetry
from hydrophone.streams.verdicts import JudgedFrames

__all__ = ["Untold", "tell", "tell_accounts", "tell_verdicts"]

log = logging.getLogger("hydrophone")

RECORD_OUTCOMES: Final = ("accepted", "duplicate", "dead_lettered", "heartbeats")
ROW_OUTCOMES: Final = ("windowed", "late", "rejected", "quarantined")


@dataclass(frozen=True, slots=True)
class Untold:
    """A window whose test is concluded; it is spoken of once its score is committed."""

    judgement: Judgement
    closed_at_s: float
    test_s: float


def tell(telemetry: Telemetry, judgement: Judgement, *, test_s: float, latency_s: float) -> None:
    """Never an embedding."""
    score, alert = judgement.score, judgement.alert
    p_value = score.joint.p_value if score.joint else None
    telemetry.windows.add(1, {"model": score.model, "status": score.status})
    telemetry.test_duration.record(test_s)
    telemetry.close_latency.record(latency_s)
    if p_value is not None:
        telemetry.p_value.set(p_value, {"model": score.model})
    telemetry.requests.add(score.counts.seen, {"model": score.model})
    if score.detection_rate is not None:
        telemetry.detection_rate.set(score.detection_rate, {"model": score.model})
    if score.baseline_detection_rate is not None:
        telemetry.baseline_detection_rate.set(score.baseline_detection_rate, {"model": score.model})
    if alert is not None:
        telemetry.alerts.add(1, {"model": score.model, "severity": alert.severity})
    log.info(
        "window_closed",
        extra={
            "model": score.model,
            "window_start_ms": score.window.start_ms,
            "window_end_ms": score.window.end_ms,
            "status": score.status,
            "reason": score.reason,
            "p_value": p_value,
            "rejected": score.rejected,
            "detection_rate": score.detection_rate,
            "alert": str(alert.id) if alert else None,
            **score.counts.model_dump(),
            "k": score.k,
            "device": score.device,
            "partition": score.source.partition if score.source else None,
            "test_ms": round(test_s * 1000, 1),
            "score_id": str(score.id),
        },
    )


def tell_verdicts(telemetry: Telemetry, judged: JudgedFrames, now_ms: int) -> None:
    """Instruments alone: a line for each frame would be more than the frames. A broker's clock may be ahead of ours."""
    telemetry.verdict_duration.record(judged.seconds)
    for (model, decision), rows in judged.decisions.items():
        if rows:
            telemetry.verdicts.add(rows, {"model": model, "decision": decision})
    for came_ms in judged.timestamps_ms:
        telemetry.verdict_latency.record(max(0, now_ms - came_ms) / 1000)


def tell_accounts(telemetry: Telemetry, before: Mapping[str, int], now: Mapping[str, int]) -> None:
    """What a partition's accounts (`processor.Accounts`, by name) have grown by since they were last told."""
    for instrument, names in ((telemetry.records, RECORD_OUTCOMES), (telemetry.rows, ROW_OUTCOMES)):
        for name in names:
            if grown := now.get(name, 0) - before.get(name, 0):
                instrument.add(grown, {"outcome": name})
