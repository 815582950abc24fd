"""Alertmanager: the body of `POST /api/v2/alerts`. An alert is its labels; whoever changes one has made another alert.

Source: Prometheus Alertmanager, `api/v2/openapi.yaml`, `postableAlerts`.
"""

from typing import Final

from hydrophone.schemas.alert import Severity
from hydrophone.schemas.incidents import Finding
from hydrophone.schemas.siem import atlas
from hydrophone.schemas.siem.fitting import Document, document
from hydrophone.schemas.siem.levels import risk_of
from hydrophone.schemas.siem.lines import branches, evidence, joined, suspects
from hydrophone.schemas.siem.wording import event_code, iso_time, one_line, plain_number, reason_of, summary

__all__ = ["HOLD_MS", "to_alertmanager"]

HOLD_MS: Final = 60 * 60 * 1000
"""An alert nobody speaks of for so long has ended: a lost close must not ring for ever."""

NAME: Final = "HydrophoneIncident"


def to_alertmanager(finding: Finding, *, hold_ms: int = HOLD_MS) -> list[Document]:
    """The incident as one alert, firing for `hold_ms` more unless it is closed or suppressed.

    After a change of severity, a label people route by, also the end of the alert it was before. At most `EVENT_LIMIT`
    bytes each; `annotations.untruncated_bytes` says where something is left out.
    """
    incident = finding.incident
    until = incident.updated_ms if incident.status in {"resolved", "suppressed"} else incident.updated_ms + hold_ms
    alerts = [_alert(finding, incident.severity, until)]
    if finding.severity_before:
        alerts.append(_alert(finding, finding.severity_before, incident.updated_ms))
    return alerts


def _alert(finding: Finding, severity: Severity, until_ms: int) -> Document:
    return document(finding, lambda shown, untruncated: _rendered(shown, severity, until_ms, untruncated))


def _rendered(finding: Finding, severity: Severity, until_ms: int, untruncated: int | None) -> Document:
    incident = finding.incident
    return {
        "labels": {
            "alertname": NAME,
            "incident": str(incident.id),
            "tenant": incident.tenant,
            "model": incident.model,
            "signal": incident.signal,
            "severity": severity,
        },
        "annotations": _annotations(finding, untruncated),
        # An alert may not end before it starts, and clocks of others may have told us when it did.
        "startsAt": iso_time(min(incident.first_seen_ms, until_ms)),
        "endsAt": iso_time(until_ms),
        "generatorURL": finding.url,
    }


def _annotations(finding: Finding, untruncated: int | None) -> Document:
    incident = finding.incident
    texts = {
        "summary": incident.title,
        "description": summary(finding),
        "action": incident.recommended_action,
        "reason": reason_of(finding),
        "status": incident.status,
        "verdict": incident.closed.verdict if incident.closed else None,
        "finding": str(finding.id),
        "sequence": str(incident.sequence),
        "correlation": str(incident.correlation_id),
        "code": event_code(incident),
        "risk": str(risk_of(incident)),
        "confidence": plain_number(incident.confidence),
        "branches": branches(incident),
        "atlas": joined(f"{each} {_named(each)}" for each in incident.atlas_techniques),
        "clients": joined(incident.clients),
        "suspects": suspects(incident),
        "evidence": evidence(incident),
        "untruncated_bytes": str(untruncated) if untruncated else None,
    }
    return {name: one_line(text) or None for name, text in texts.items() if text}


def _named(technique: str) -> str:
    return atlas.TECHNIQUES[technique].name if technique in atlas.TECHNIQUES else ""
