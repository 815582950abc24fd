"""One made-up incident in four steps, with every field filled: what the documentation shows. No measurement."""

import uuid
from typing import Final

from hydrophone.schemas.alert import alert_id
from hydrophone.schemas.commands import Acknowledge, Close, Suppress, command_id
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.incidents import (
    AlertedWindow,
    Carrier,
    Closing,
    Decision,
    Finding,
    Incident,
    Producer,
    Related,
    Suppression,
    Totals,
    dedup_key,
    finding_of,
    incident_id,
    revised,
)
from hydrophone.schemas.score import Branch, Evidence, ReferenceId, Suspect, score_id

__all__ = ["EXAMPLE", "STEPS"]

MODEL: Final = "resnet50@3"
START_MS: Final = 1_760_000_040_000
MINUTE_MS: Final = 60_000
REFERENCE: Final = ReferenceId(version="2025-10-01", sha256="5f" * 32)
CARRIER: Final = Branch(layer="layer4", measure="mmd_same_class", bandwidth=0.5)
ANALYST: Final = "r.okafor"
KEY: Final = dedup_key("default", MODEL, "difference")
IDENTITY: Final = incident_id(KEY, START_MS)


def _window(number: int, p_value: float, statistic: float) -> AlertedWindow:
    bounds = WindowBounds(start_ms=START_MS + number * MINUTE_MS, end_ms=START_MS + (number + 1) * MINUTE_MS)
    score = score_id(MODEL, bounds, REFERENCE)
    return AlertedWindow(
        alert_id=alert_id(score),
        score_id=score,
        window=bounds,
        severity="high",
        rules=("immediate",),
        p_value=p_value,
        statistic=statistic,
        rows_seen=512,
        branch=CARRIER,
        evidence=Evidence(uri=f"s3://evidence/resnet50/{score}.safetensors", sha256="a1" * 32),
    )


def _suspect(row: int, client: str, score: float) -> Suspect:
    frame = uuid.uuid5(IDENTITY, "frame")
    return Suspect(
        row=row,
        frame_id=frame,
        score=score,
        p_value=0.001,
        is_named=True,
        sample_id=f"req-77{row:02d}",
        client_id=client,
        topic="hydrophone.activations.v1",
        partition=3,
        offset=918_273,
        xy=(2.5, -1.25),
    )


def _at(minutes: int) -> int:
    return START_MS + minutes * MINUTE_MS


_NEW: Final = Incident(
    id=IDENTITY,
    model=MODEL,
    signal="difference",
    dedup_key=KEY,
    episode_start_ms=START_MS,
    sequence=2,
    status="new",
    severity="high",
    confidence=0.995,
    title=f"Suspected adversarial inputs to model {MODEL}",
    recommended_action="Look at the suspects' requests and clients first.",
    first_seen_ms=START_MS,
    last_seen_ms=_at(2),
    opened_ms=_at(1),
    updated_ms=_at(2),
    totals=Totals(alerts=2, rows=1_024, suspects=37, clients=2, models=2),
    p_value=0.001,
    statistic=14.25,
    carriers=(Carrier(layer="layer4", measure="mmd_same_class", windows=2, statistic=14.25),),
    windows=(_window(1, 0.001, 14.25), _window(0, 0.002, 11.5)),
    suspects=(_suspect(11, "c-9f2e", 7.9), _suspect(40, "c-03b1", 6.4)),
    clients=("c-9f2e", "c-03b1"),
    related=(
        Related(
            incident_id=incident_id(dedup_key("default", "vit-b16@1", "difference"), START_MS),
            model="vit-b16@1",
            shared_clients=2,
        ),
    ),
    correlation_id=IDENTITY,
    atlas_techniques=("AML.T0015", "AML.T0043"),
)
_ACKNOWLEDGED: Final = revised(
    _NEW,
    updated_ms=_at(4),
    acknowledged=Decision(
        command_id=command_id(Acknowledge, IDENTITY, ANALYST, _at(4)), by=ANALYST, reason="looking", at_ms=_at(4)
    ),
)
_SUPPRESSED: Final = revised(
    _ACKNOWLEDGED,
    updated_ms=_at(5),
    suppressed=Suppression(
        command_id=command_id(Suppress, MODEL, ANALYST, _at(5)),
        by=ANALYST,
        reason="red team exercise until noon",
        at_ms=_at(5),
        until_ms=_at(90),
    ),
)
_CLOSED: Final = revised(
    _SUPPRESSED,
    updated_ms=_at(30),
    suppressed=None,
    closed=Closing(
        reason="operator",
        at_ms=_at(30),
        detail="closed by command",
        decision=Decision(
            command_id=command_id(Close, IDENTITY, ANALYST, _at(30)),
            by=ANALYST,
            reason="the red team confirms",
            at_ms=_at(30),
        ),
        verdict="true_positive",
    ),
)
_PRODUCER: Final = Producer(version="0.1.0", instance="incidents-0")
_URL: Final = f"https://hydrophone.example/incidents/{IDENTITY}"

EXAMPLE: Final[Finding] = finding_of(_NEW, "severity_changed", _PRODUCER, severity_before="medium", url=_URL)
STEPS: Final[tuple[Finding, ...]] = (
    EXAMPLE,
    finding_of(_ACKNOWLEDGED, "acknowledged", _PRODUCER, url=_URL),
    finding_of(_SUPPRESSED, "suppressed", _PRODUCER, url=_URL),
    finding_of(_CLOSED, "closed", _PRODUCER, url=_URL),
)
