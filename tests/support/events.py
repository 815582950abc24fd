"""One of each event, with every field filled. Nothing here asserts anything."""

import uuid
from typing import Final

from tests.support.frames import MODEL, T0, frame_id

from hydrophone.schemas.alert import Alert, FiredRule, alert_id
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.operations import DeadLetter, ModelState, OperationalEvent, ReferencePointer, operational_event
from hydrophone.schemas.score import (
    Branch,
    Counts,
    Evidence,
    Joint,
    LayerScore,
    ReferenceId,
    Source,
    Strata,
    Suspect,
    Trace,
    WindowScore,
    score_id,
)

__all__ = ["ALERT", "DEAD_LETTER", "OPERATIONAL", "POINTER", "SCORE", "STATE", "TRACEPARENT", "window_score"]

TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

_WINDOW: Final = WindowBounds(start_ms=T0, end_ms=T0 + 60_000)
_REFERENCE: Final = ReferenceId(version="2024-01", sha256="a" * 64)
_BRANCH: Final = Branch(layer="fc", measure="mmd_same_class", bandwidth=0.5)
_LAYERS: Final = {"fc": LayerScore(mmd2=0.0125, statistic=6.5, p_value=0.001, p_adjusted=0.002)}
_SUSPECT: Final = Suspect(
    row=3,
    frame_id=uuid.UUID(frame_id("frame")),
    score=0.75,
    sample_id="request 17",
    client_id="client 4",
    topic="hydrophone.activations.v1",
    partition=1,
    offset=41,
    xy=(0.5, -1.25),
)
_EVIDENCE: Final = Evidence(uri="file:///evidence/1.safetensors", sha256="b" * 64)

SCORE: Final = WindowScore(
    id=score_id(MODEL, _WINDOW, _REFERENCE),
    model=MODEL,
    window=_WINDOW,
    source=Source(topic="hydrophone.activations.v1", partition=1, first_offset=40, close_offset=42),
    reference=_REFERENCE,
    counts=Counts(
        seen=300, tested=256, rejected=1, quarantined=2, duplicate=3, late_since_previous=4, ignored_tensors=5
    ),
    k=256,
    sampling_key_id="key-1",
    status="tested",
    joint=Joint(p_value=0.001, statistic=6.5, e_value=123.5),
    layers=_LAYERS,
    branch=_BRANCH,
    alpha=0.05,
    rejected=True,
    calibration="stratified",
    strata=Strata(rows={"0": 200, "other": 56}),
    effective_rows=256,
    suspects=(_SUSPECT,),
    permutations=999,
    content_sha256="c" * 64,
    evidence=_EVIDENCE,
    device="cpu",
    config_sha256="d" * 64,
    trace=Trace(traceparent=TRACEPARENT),
)

ALERT: Final = Alert(
    id=alert_id(SCORE.id),
    model=MODEL,
    window=_WINDOW,
    score_id=SCORE.id,
    rules=(
        FiredRule(name="immediate", k=2, n=3, level=0.001, p_values=(0.5, 0.001, 0.001), false_alarms_per_month=0.9),
    ),
    severity="high",
    confidence=0.99,
    title="Adversarial inputs suspected",
    p_value=0.001,
    statistic=6.5,
    rows_seen=300,
    branch=_BRANCH,
    layers=_LAYERS,
    suspects=(_SUSPECT,),
    atlas_techniques=("AML.T0043",),
    recommended_action="Look at the suspects.",
    evidence=_EVIDENCE,
)

DEAD_LETTER: Final = DeadLetter(
    reason="bad_shape",
    detail="`layer.fc` must have shape [2, >=1]; got [3, 1] — bad",
    topic="hydrophone.activations.v1",
    partition=1,
    offset=41,
    timestamp_ms=T0,
    version="0.1.0",
)
OPERATIONAL: Final[OperationalEvent] = operational_event(
    "log_gap", "hydrophone.activations.v1", 1, "12 records are gone", model=MODEL, first_offset=3, last_offset=14
)
POINTER: Final = ReferencePointer(
    model=MODEL, version="2024-01", uri="s3://references/2024-01", sha256="a" * 64, effective_from_ms=T0
)
STATE: Final = ModelState(
    model=MODEL,
    reference_sha256="a" * 64,
    last_end_ms=T0,
    recent_p_values=(0.5, 0.25),
    sequential=(1.5, 0.25, 0.5, 0.125),
)


def window_score(*, start_ms: int, p_value: float | None, reference: str = "a" * 64) -> WindowScore:
    """A score of one second, tested or not, of one of two references."""
    window, identity = (
        WindowBounds(start_ms=start_ms, end_ms=start_ms + 1000),
        ReferenceId(version="v", sha256=reference),
    )
    return SCORE.model_copy(
        update={
            "id": score_id(MODEL, window, identity),
            "window": window,
            "reference": identity,
            "status": "not_tested" if p_value is None else "tested",
            "joint": None if p_value is None else Joint(p_value=p_value, statistic=3.0, e_value=1.0),
        }
    )
