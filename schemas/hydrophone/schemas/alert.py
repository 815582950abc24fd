"""`Alert`: a window that rang, under the budget of false alarms the operator set. Read this file first.

A score says *different*; an alert says *suspected*. Which rules ring is decided in `streams/alerting.py`.
"""

import uuid
from typing import ClassVar, Literal

from pydantic import Field

from hydrophone.schemas.event import Event, Probability, WindowBounds, event_id
from hydrophone.schemas.event import Value as _Value
from hydrophone.schemas.score import Branch, Evidence, LayerScore, Suspect

__all__ = ["Alert", "FiredRule", "alert_id"]


class FiredRule(_Value):
    """One rule that fired: at least `k` of the model's last `n` windows had a p-value at most `level`."""

    name: Literal["immediate"]
    k: int = Field(ge=1)
    n: int = Field(ge=1)
    level: Probability
    p_values: tuple[float, ...] = Field(description="of the last n windows, this one last")
    false_alarms_per_month: float = Field(
        description="what the rule costs on clean traffic; at most its share of budget"
    )


class Alert(Event):
    """One alert per window that raises one. `id` is the same on every replay of the same window."""

    event_type: ClassVar[str] = "org.hydrophone.alert.v1"

    model: str
    window: WindowBounds
    score_id: uuid.UUID
    rules: tuple[FiredRule, ...] = Field(min_length=1)
    severity: Literal["low", "medium", "high", "critical"]
    confidence: Probability
    title: str
    p_value: Probability
    statistic: float
    rows_seen: int
    branch: Branch | None
    layers: dict[str, LayerScore]
    suspects: tuple[Suspect, ...]
    atlas_techniques: tuple[str, ...] = Field(description="MITRE ATLAS technique ids this evidence is consistent with")
    recommended_action: str
    evidence: Evidence | None


def alert_id(score: uuid.UUID) -> uuid.UUID:
    """A window raises at most one alert, whatever rules fired."""
    return event_id("alert", score)
