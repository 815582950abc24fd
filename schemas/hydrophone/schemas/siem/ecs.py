"""ECS 9.4: an alert for Elasticsearch and OpenSearch, in fields of ECS alone, so that its own mapping suffices.

Source: https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html.
"""

from collections.abc import Iterable
from typing import Final

from hydrophone.schemas.incidents import Finding, Incident
from hydrophone.schemas.siem import atlas
from hydrophone.schemas.siem.fitting import Document, document
from hydrophone.schemas.siem.levels import level_of, risk_of
from hydrophone.schemas.siem.wording import (
    PRODUCT,
    VENDOR,
    event_code,
    iso_time,
    one_line,
    plain_number,
    reason_of,
    summary,
)

__all__ = ["ECS_VERSION", "to_ecs"]

ECS_VERSION: Final = "9.4.0"
NANOSECONDS: Final = 1_000_000
"""In a millisecond: `event.duration` is in nanoseconds."""

LONGEST: Final = 2**63 - 1
"""What Elasticsearch's `long` can hold."""


def to_ecs(finding: Finding) -> Document:
    """At most `EVENT_LIMIT` bytes: `labels.untruncated_bytes` says where something is left out."""
    return document(finding, _rendered)


def _rendered(finding: Finding, untruncated: int | None) -> Document:
    incident = finding.incident
    return {
        "@timestamp": iso_time(incident.updated_ms),
        "ecs": {"version": ECS_VERSION},
        "message": summary(finding),
        "tags": ["adversarial-ml", *(["drill"] if incident.signal == "drill" else [])],
        "labels": _labels(finding, untruncated),
        "event": _event(finding),
        "rule": _rule(finding),
        "threat": _threat(incident.atlas_techniques),
        "observer": {
            "vendor": VENDOR,
            "product": PRODUCT,
            "type": "model monitor",
            "version": finding.producer.version,
            "name": finding.producer.instance,
        },
        "service": {"name": incident.model, "type": "model"},
        "organization": {"id": incident.tenant},
    }


def _event(finding: Finding) -> Document:
    incident = finding.incident
    duration = min((incident.last_seen_ms - incident.first_seen_ms) * NANOSECONDS, LONGEST)
    return {
        "kind": "alert",
        "category": ["intrusion_detection"],
        "type": ["info"],
        "action": finding.action,
        "code": event_code(incident),
        "id": str(finding.id),
        "sequence": incident.sequence,
        "module": "hydrophone",
        "dataset": "hydrophone.findings",
        "provider": PRODUCT,
        "reason": one_line(reason_of(finding)),
        "severity": level_of(incident).risk[0],
        "risk_score": float(risk_of(incident)),
        "created": iso_time(incident.opened_ms),
        "start": iso_time(incident.first_seen_ms),
        "end": iso_time(incident.last_seen_ms),
        "duration": duration,
        "url": finding.url,
    }


def _rule(finding: Finding) -> Document:
    return {
        "id": event_code(finding.incident),
        "name": one_line(finding.incident.title),
        "category": finding.incident.signal,
        "description": one_line(finding.incident.recommended_action),
        "ruleset": PRODUCT,
        "version": finding.producer.version,
    }


def _threat(techniques: tuple[str, ...]) -> Document:
    if not techniques:
        return {}
    parents = _unique(map(atlas.parent_of, techniques))
    subs = [technique for technique in techniques if atlas.parent_of(technique) != technique]
    known = [atlas.TECHNIQUES[parent] for parent in parents if parent in atlas.TECHNIQUES]
    tactics = _unique(tactic for technique in known for tactic in technique.tactics)
    return {
        "framework": atlas.FRAMEWORK,
        "tactic": {"id": tactics, "name": [atlas.TACTICS[tactic] for tactic in tactics]},
        "technique": {**_techniques(parents), "subtechnique": _techniques(subs) if subs else {}},
    }


def _techniques(ids: list[str]) -> Document:
    return {
        "id": ids,
        "name": [atlas.TECHNIQUES[each].name if each in atlas.TECHNIQUES else each for each in ids],
        "reference": [atlas.address(each) for each in ids],
    }


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _labels(finding: Finding, untruncated: int | None) -> Document:
    """Texts alone: a label is a keyword to ECS."""
    incident = finding.incident
    totals = {f"total_{name}": str(count) for name, count in incident.totals}
    named = {
        "incident": str(incident.id),
        "dedup_key": incident.dedup_key,
        "correlation": str(incident.correlation_id),
        "status": incident.status,
        "severity": incident.severity,
        "cause": finding.cause,
        "confidence": plain_number(incident.confidence),
        "p_value": plain_number(incident.p_value) if incident.p_value is not None else None,
        "statistic": plain_number(incident.statistic) if incident.statistic is not None else None,
        "verdict": incident.closed.verdict if incident.closed else None,
        "untruncated_bytes": str(untruncated) if untruncated else None,
    }
    return {**named, **totals, **_lists(incident)}


def _lists(incident: Incident) -> Document:
    """Lists of texts: a label holds no objects, but any field of Elasticsearch may hold several values."""
    lists: dict[str, Iterable[str]] = {
        "branches": (f"{carrier.layer} ({carrier.measure})" for carrier in incident.carriers),
        "clients": incident.clients,
        "suspects": (suspect.sample_id or f"{suspect.frame_id}/{suspect.row}" for suspect in incident.suspects),
        "scores": (str(window.score_id) for window in incident.windows),
        "evidence": (window.evidence.uri for window in incident.windows if window.evidence),
        "related": (str(related.incident_id) for related in incident.related),
    }
    return {name: [one_line(entry) for entry in entries] for name, entries in lists.items()}
