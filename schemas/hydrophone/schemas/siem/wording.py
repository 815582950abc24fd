"""What all forms say alike: who we are, times, numbers, one sentence for people. No form lives here."""

import re
from datetime import UTC, datetime
from typing import Final

from hydrophone.schemas.incidents import LAST_MS, Finding, Incident, Signal

__all__ = ["PRODUCT", "VENDOR", "event_code", "iso_time", "one_line", "plain_number", "reason_of", "summary"]

VENDOR: Final = "Hydrophone project"
PRODUCT: Final = "Hydrophone"

SUBJECTS: Final[dict[Signal, str]] = {
    "difference": "Suspected adversarial inputs to model",
    "replay": "Suspected replay of inputs to model",
    "drill": "DRILL, no attack: model",
}

_BREAKING: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, other ends of lines, and halves of characters, for which UTF-8 has no bytes."""


def one_line(text: str) -> str:
    """The text with a space for each character that could break a line, a terminal or an encoding."""
    return _BREAKING.sub(" ", text).strip()


def event_code(incident: Incident) -> str:
    return f"hydrophone.{incident.signal}"


def iso_time(ms: int) -> str:
    """RFC 3339 in UTC; a time no calendar has becomes the nearest that it has."""
    within = min(max(ms, 0), LAST_MS)
    whole = datetime.fromtimestamp(within // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{within % 1000:03d}Z"


def plain_number(value: float) -> str:
    return f"{value:.6g}"


def summary(finding: Finding) -> str:
    """One sentence that stands by itself, in a chat as in a log."""
    incident = finding.incident
    when = f"from {iso_time(incident.first_seen_ms)} to {iso_time(incident.last_seen_ms)}"
    parts = [f"{_counted(incident.totals.alerts, 'alert')} {when}"]
    if incident.p_value is not None:
        parts.append(f"smallest p-value {plain_number(incident.p_value)}")
    if incident.carriers:
        carrier = incident.carriers[0]
        parts.append(f"carried by {one_line(carrier.layer)} ({one_line(carrier.measure)})")
    if incident.totals.clients:
        parts.append(_counted(incident.totals.clients, "client"))
    return f"{SUBJECTS[incident.signal]} {incident.model}: {', '.join(parts)}"


def reason_of(finding: Finding) -> str:
    """Why this step, and by whom, as far as somebody decided it."""
    incident = finding.incident
    if finding.severity_before:
        return f"severity was {finding.severity_before}, is {incident.severity}"
    if incident.closed and not incident.closed.decision:
        return f"{incident.closed.reason}: {incident.closed.detail}"
    decision = incident.closed.decision if incident.closed else incident.suppressed or incident.acknowledged
    if decision is None:
        return finding.cause.replace("_", " ")
    return f"{incident.status.replace('_', ' ')} by {decision.by}: {decision.reason}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
