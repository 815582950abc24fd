"""`Incident`: alerts that belong together, with what became of them; `Finding`: one step of it, as it is published.

When an incident opens, goes on and closes is decided on the stream side, and how a SIEM is told in `siem/`.
"""

import uuid
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from hydrophone.schemas.alert import RuleName, Severity
from hydrophone.schemas.event import Event, Probability, Value, WindowBounds, event_id
from hydrophone.schemas.names import MODEL_PATTERN
from hydrophone.schemas.score import Branch, Evidence, Suspect

__all__ = [
    "Action",
    "AlertedWindow",
    "Carrier",
    "Cause",
    "Closing",
    "Decision",
    "Finding",
    "Incident",
    "ModelId",
    "Producer",
    "Related",
    "Signal",
    "Status",
    "Suppression",
    "Tenant",
    "TimeMs",
    "Totals",
    "Verdict",
    "dedup_key",
    "finding_id",
    "finding_of",
    "incident_id",
    "revised",
    "status_of",
]

Signal = Literal["difference", "replay", "drill"]
"""What an incident is about: windows unlike the reference, repeated rows, or nothing but an exercise."""

Status = Literal["new", "in_progress", "suppressed", "resolved"]
"""`new` until a person has acknowledged it, whatever happened in between."""

Action = Literal["open", "update", "suppress", "close"]
Cause = Literal[
    "opened",
    "severity_changed",
    "still_seen",
    "correlated",
    "acknowledged",
    "reopened",
    "suppressed",
    "suppression_ended",
    "closed",
]
Verdict = Literal["true_positive", "false_positive", "benign", "duplicate", "insufficient_data"]

ACTIONS: Final[Mapping[Cause, Action]] = {"opened": "open", "suppressed": "suppress", "closed": "close"}
"""Every other cause is an update."""

LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, where calendars of most programs end."""

TimeMs = Annotated[int, Field(ge=0, le=LAST_MS, description="UTC, milliseconds since the epoch")]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
ModelId = Annotated[str, Field(pattern=f"^{MODEL_PATTERN.pattern}$")]
Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
Technique = Annotated[str, Field(pattern=r"^AML\.T[0-9]{4}(\.[0-9]{3})?$")]
WebAddress = Annotated[
    str,
    Field(
        max_length=1_000,
        pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]*)?$",
        description="an absolute http URL",
    ),
]


class Totals(Value):
    """How many there were in all; the lists beside it hold the most telling ones."""

    alerts: Count
    rows: Count = Field(description="rows seen in the windows that rang")
    suspects: Count = Field(description="rows named as suspects")
    clients: Count = Field(description="clients of these rows")
    models: Count = Field(description="models that incidents of the same clients and time are about, this one included")


class Carrier(Value):
    """A branch that carried the joint maximum of windows that rang."""

    layer: str
    measure: str
    windows: Count
    statistic: Finite = Field(description="its largest, in deviations of the null")


class AlertedWindow(Value):
    """A window that rang, and where its evidence lies."""

    alert_id: uuid.UUID
    score_id: uuid.UUID
    window: WindowBounds
    severity: Severity
    rules: tuple[RuleName, ...]
    p_value: Probability | None
    statistic: Finite | None
    rows_seen: Count
    branch: Branch | None
    evidence: Evidence | None


class Related(Value):
    """Another incident at the same time, some of whose clients are the same."""

    incident_id: uuid.UUID
    model: ModelId
    shared_clients: Count


class Decision(Value):
    """What somebody decided, by which command, and why."""

    command_id: uuid.UUID
    by: str
    reason: str
    at_ms: TimeMs


class Suppression(Decision):
    until_ms: TimeMs | None = Field(description="null: until another command")


class Closing(Value):
    """`quiet`: enough windows in a row did not ring. `silent`: no window came for too long. `operator`: see `decision`.

    A closing that nobody decided carries no verdict: that a difference went away does not say what it was.
    """

    reason: Literal["quiet", "silent", "operator"]
    at_ms: TimeMs
    detail: str
    decision: Decision | None = None
    verdict: Verdict | None = None

    @model_validator(mode="after")
    def _is_decided_by_operators_alone(self) -> Self:
        if len({self.reason == "operator", self.decision is not None, self.verdict is not None}) > 1:
            raise ValueError(
                "a closing says its `decision` and `verdict` if its `reason` is `operator`, and only then; got "
                f"{self.reason}, {'a' if self.decision else 'no'} decision, {'a' if self.verdict else 'no'} verdict"
            )
        return self


class Incident(Event):
    """One per dedup key and episode; key `id`. Lists are in order: the most telling first."""

    event_type: ClassVar[str] = "org.hydrophone.incident.v1"

    tenant: Tenant = "default"
    model: ModelId
    signal: Signal
    dedup_key: str = Field(description="the same for every episode; at most one incident of it is open")
    episode_start_ms: TimeMs = Field(description="start of the window whose alert began the episode")
    sequence: int = Field(ge=1, le=2**31 - 1, description="of the finding that told this state")
    status: Status
    severity: Severity
    confidence: Probability
    title: str
    recommended_action: str
    first_seen_ms: TimeMs = Field(description="start of the first window that rang")
    last_seen_ms: TimeMs = Field(description="end of the last window that rang")
    opened_ms: TimeMs
    updated_ms: TimeMs = Field(description="when this state was reached")
    totals: Totals
    p_value: Probability | None = Field(description="the smallest of a window that rang")
    statistic: Finite | None = Field(description="the largest of a window that rang, in deviations of the null")
    carriers: tuple[Carrier, ...] = ()
    windows: tuple[AlertedWindow, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    clients: tuple[str, ...] = Field((), description="of the suspects, as their publisher writes them")
    related: tuple[Related, ...] = ()
    correlation_id: uuid.UUID = Field(description="the same for incidents that belong together; its own id if alone")
    atlas_techniques: tuple[Technique, ...] = ()
    acknowledged: Decision | None = None
    suppressed: Suppression | None = None
    closed: Closing | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        derived = {
            "dedup_key": dedup_key(self.tenant, self.model, self.signal),
            "id": incident_id(self.dedup_key, self.episode_start_ms),
            "status": status_of(self.acknowledged, self.suppressed, self.closed),
        }
        for name, value in derived.items():
            if getattr(self, name) != value:
                raise ValueError(f"`{name}` follows from the rest, which makes it {value}; got {getattr(self, name)}")
        outside = [number for number in self._taken_over() if not -(2**63) <= number < 2**63]
        if outside:
            raise ValueError(f"numbers of windows and suspects must fit into 64 bits; got {outside[0]!s:.40}")
        for before, after in (("first_seen_ms", "last_seen_ms"), ("opened_ms", "updated_ms")):
            if getattr(self, before) > getattr(self, after):
                raise ValueError(f"`{before}` must not be after `{after}`")
        return self

    def _taken_over(self) -> Iterator[int]:
        """Numbers from events whose own schemas leave them unbounded."""
        for window in self.windows:
            yield from (window.window.start_ms, window.window.end_ms)
        for suspect in self.suspects:
            yield from (suspect.row, suspect.partition or 0, suspect.offset or 0)


class Producer(Value):
    """The program that published a finding."""

    version: str
    instance: str | None = None


class Finding(Event):
    """One step of an incident: its whole state, and why it is told. `id` names the incident and the sequence number."""

    event_type: ClassVar[str] = "org.hydrophone.finding.v1"

    action: Action
    cause: Cause
    severity_before: Severity | None = Field(None, description="where `cause` is `severity_changed`")
    url: WebAddress | None = Field(None, description="of the page that shows the incident")
    producer: Producer
    incident: Incident

    @model_validator(mode="after")
    def _agrees_with_its_incident(self) -> Self:
        status, sequence = self.incident.status, self.incident.sequence
        claims = {
            "`id` names another incident or sequence number": self.id == finding_id(self.incident.id, sequence),
            f"`action` of `{self.cause}` is `{_action(self.cause)}`": self.action == _action(self.cause),
            "`opened` is the first step, and no other": (self.cause == "opened") == (sequence == 1),
            "`closed` tells a resolved incident, and nothing else does": (self.cause == "closed")
            == (status == "resolved"),
            "`suppressed` tells a suppressed incident": self.cause != "suppressed" or status == "suppressed",
            "`severity_before` comes with `severity_changed`": (self.severity_before is not None)
            == (self.cause == "severity_changed"),
        }
        broken = [claim for claim, holds in claims.items() if not holds]
        if broken:
            raise ValueError(f"{'; '.join(broken)}; got `{self.cause}`, step {sequence}, {status}")
        return self


def dedup_key(tenant: str, model: str, signal: Signal) -> str:
    """Neither a tenant nor a model may hold a `|`, so that no two threes give one key. At most 252 characters."""
    return f"{tenant}|{model}|{signal}"


def incident_id(key: str, episode_start_ms: int) -> uuid.UUID:
    return event_id("incident", key, episode_start_ms)


def finding_id(incident: uuid.UUID, sequence: int) -> uuid.UUID:
    return event_id("finding", incident, sequence)


def status_of(acknowledged: Decision | None, suppressed: Suppression | None, closed: Closing | None) -> Status:
    if closed:
        return "resolved"
    if suppressed:
        return "suppressed"
    return "in_progress" if acknowledged else "new"


def revised(incident: Incident, *, is_told: bool = True, **changes: Any) -> Incident:
    """The incident changed, with the status that follows, and checked; with the next sequence number if it is told."""
    fields = dict(incident) | changes
    decided = (fields["acknowledged"], fields["suppressed"], fields["closed"])
    sequence = incident.sequence + is_told
    return Incident.model_validate(fields | {"sequence": sequence, "status": status_of(*decided)})


def finding_of(
    incident: Incident,
    cause: Cause,
    producer: Producer,
    *,
    severity_before: Severity | None = None,
    url: str | None = None,
) -> Finding:
    return Finding(
        id=finding_id(incident.id, incident.sequence),
        action=_action(cause),
        cause=cause,
        severity_before=severity_before,
        url=url,
        producer=producer,
        incident=incident,
    )


def _action(cause: Cause) -> Action:
    return ACTIONS.get(cause, "update")
