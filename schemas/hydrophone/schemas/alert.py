"""`Alert`: a window that rang, under the budget of false alarms the operator set. Read this file first.

A score says *different*; an alert says *suspected*. Which rules ring is decided in `streams/alerting.py`.
"""

import uuid
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from hydrophone.schemas.event import Event, Probability, WindowBounds, event_id
from hydrophone.schemas.event import Value as _Value
from hydrophone.schemas.score import Branch, Evidence, LayerScore, Replay, Suspect

__all__ = ["Alert", "FiredRule", "RuleName", "Severity", "alert_id"]

RuleName = Literal["immediate", "sequential", "replay"]
Severity = Literal["low", "medium", "high", "critical"]


class FiredRule(_Value):
    """One rule that fired, with its numbers.

    `immediate`: at least `k` of the model's last `n` windows had a p-value at most `level`. `replay`: the same, of the
    window's repeated rows. `sequential`: evidence over all windows since it last fired, `value`, reached `threshold`.
    """

    name: RuleName
    k: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1)
    level: Probability | None = None
    p_values: tuple[float, ...] = Field((), description="of the last n windows, this one last")
    value: float | None = Field(None, gt=0, description="Shiryaev-Roberts e-detector, arXiv 2203.03532")
    threshold: float | None = Field(None, gt=0, description="mean run length of clean windows, at least")
    false_alarms_per_month: float = Field(
        description="what the rule costs on clean traffic; at most its share of budget"
    )

    @model_validator(mode="after")
    def _has_its_numbers(self) -> Self:
        wanted = ("value", "threshold") if self.name == "sequential" else ("k", "n", "level", "p_values")
        missing = [name for name in wanted if getattr(self, name) in {None, ()}]
        if missing:
            raise ValueError(f"a rule `{self.name}` must say {', '.join(wanted)}; got no {', '.join(missing)}")
        return self


class Alert(Event):
    """One alert per window that raises one. `id` is the same on every replay of the same window."""

    event_type: ClassVar[str] = "org.hydrophone.alert.v1"

    model: str
    window: WindowBounds
    score_id: uuid.UUID
    rules: tuple[FiredRule, ...] = Field(min_length=1)
    severity: Severity
    confidence: Probability
    title: str
    p_value: Probability | None = Field(description="of the joint test; null where the window could not be tested")
    statistic: float | None
    rows_seen: int
    branch: Branch | None
    layers: dict[str, LayerScore]
    suspects: tuple[Suspect, ...]
    replay: Replay | None = Field(None, description="the window's repeated rows, where they were looked for")
    atlas_techniques: tuple[str, ...] = Field(description="MITRE ATLAS technique ids this evidence is consistent with")
    recommended_action: str
    evidence: Evidence | None


def alert_id(score: uuid.UUID) -> uuid.UUID:
    """A window raises at most one alert, whatever rules fired."""
    return event_id("alert", score)
