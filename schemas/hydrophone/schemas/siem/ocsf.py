"""OCSF 1.8.0: a Detection Finding (class 2004) with the profiles `security_control` and `incident`.

Source: https://schema.ocsf.io/1.8.0/classes/detection_finding. Each number stands with its caption; what OCSF has no
room for stands in `unmapped`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from hydrophone.schemas.incidents import Action, AlertedWindow, Finding, Incident, Signal, Status, Verdict
from hydrophone.schemas.score import Suspect
from hydrophone.schemas.siem import atlas
from hydrophone.schemas.siem.fitting import Document, document
from hydrophone.schemas.siem.levels import LEVELS, confidence_of, level_of, risk_of
from hydrophone.schemas.siem.wording import PRODUCT, VENDOR, event_code, one_line, plain_number, reason_of, summary

__all__ = ["OCSF_VERSION", "to_ocsf"]

OCSF_VERSION: Final = "1.8.0"
CLASS_UID: Final = 2004


class Coded(NamedTuple):
    """A number of an enumeration, and its caption."""

    id: int
    caption: str


ACTIVITIES: Final[Mapping[Action, Coded]] = {
    "open": Coded(1, "Create"),
    "update": Coded(2, "Update"),
    "suppress": Coded(2, "Update"),
    "close": Coded(3, "Close"),
}
DISPOSITIONS: Final[Mapping[Action, Coded]] = {
    "open": Coded(19, "Alert"),
    "update": Coded(15, "Detected"),
    "suppress": Coded(17, "Logged"),
    "close": Coded(15, "Detected"),
}
STATUSES: Final[Mapping[Status, Coded]] = {
    "new": Coded(1, "New"),
    "in_progress": Coded(2, "In Progress"),
    "suppressed": Coded(3, "Suppressed"),
    "resolved": Coded(4, "Resolved"),
}
VERDICTS: Final[Mapping[Verdict, Coded]] = {
    "false_positive": Coded(1, "False Positive"),
    "true_positive": Coded(2, "True Positive"),
    "benign": Coded(5, "Benign"),
    "insufficient_data": Coded(7, "Insufficient Data"),
    "duplicate": Coded(10, "Duplicate"),
}
SUSPICIOUS: Final = Coded(4, "Suspicious")
EXERCISE: Final = Coded(6, "Test")

STATISTICAL: Final = Coded(3, "Statistical")
ANALYTICS: Final[Mapping[Signal, tuple[str, Coded, str]]] = {
    "difference": ("Window test", STATISTICAL, "kernel two-sample and rank statistics under one permutation null"),
    "replay": ("Repetition", STATISTICAL, "beta-binomial tail of repeated rows"),
    "drill": ("Drill", Coded(99, "Exercise"), "none: an operator asked for it"),
}
"""Name, type and algorithm."""

OBSERVED_CLIENTS: Final = 10


def to_ocsf(finding: Finding) -> Document:
    """At most `EVENT_LIMIT` bytes: `metadata.is_truncated` says where suspects, windows or texts are left out."""
    return document(finding, _rendered)


def _rendered(finding: Finding, untruncated: int | None) -> Document:
    incident = finding.incident
    activity, level, risk = ACTIVITIES[finding.action], level_of(incident), risk_of(incident)
    type_uid = CLASS_UID * 100 + activity.id
    return {
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": type_uid,
        "type_name": f"Detection Finding: {activity.caption}",
        **_coded("activity", activity, caption="activity_name"),
        **_coded("severity", Coded(level.ocsf_id, level.caption)),
        **_coded("status", STATUSES[incident.status]),
        **_coded("action", Coded(3, "Observed")),
        **_coded("disposition", DISPOSITIONS[finding.action]),
        **_coded("verdict", _verdict(incident)),
        **_coded("priority", Coded(level.rank, level.caption)),
        **_coded("risk_level", Coded(level.rank, level.caption)),
        **_coded("confidence", Coded(confidence_of(incident).ocsf_id, confidence_of(incident).caption)),
        "risk_score": risk,
        "confidence_score": int(100 * incident.confidence),
        "is_alert": finding.action == "open",
        "time": incident.updated_ms,
        "timezone_offset": 0,
        "start_time": incident.first_seen_ms,
        "end_time": incident.last_seen_ms,
        "duration": incident.last_seen_ms - incident.first_seen_ms,
        "count": incident.totals.alerts,
        "message": summary(finding),
        "status_code": finding.cause,
        "status_detail": reason_of(finding),
        "remediation": {"desc": incident.recommended_action},
        "src_url": finding.url,
        "assignee": {"name": incident.acknowledged.by} if incident.acknowledged else None,
        "metadata": _metadata(finding, untruncated),
        "finding_info": _finding_info(finding),
        "resources": [_model(incident.model, Coded(1, "Target")), *_related_models(incident)],
        "observables": list(_observables(incident)),
        "evidences": list(_evidences(incident)),
        "anomaly_analyses": list(_analyses(incident)),
        "unmapped": {"hydrophone": _unmapped(finding)},
    }


def _coded(name: str, value: Coded, *, caption: str | None = None) -> Document:
    return {f"{name}_id": value.id, caption or name: value.caption}


def _verdict(incident: Incident) -> Coded:
    if incident.signal == "drill":
        return EXERCISE
    return VERDICTS[incident.closed.verdict] if incident.closed and incident.closed.verdict else SUSPICIOUS


def _product(finding: Finding) -> Document:
    return {
        "name": PRODUCT,
        "vendor_name": VENDOR,
        "uid": "hydrophone",
        "version": finding.producer.version,
    }


def _metadata(finding: Finding, untruncated: int | None) -> Document:
    incident = finding.incident
    cut = {"is_truncated": True, "untruncated_size": -(-untruncated // 1000)} if untruncated else {}  # kB, OCSF says
    return {
        "version": OCSF_VERSION,
        "profiles": ["security_control", "incident"],
        "uid": str(finding.id),
        "correlation_uid": str(incident.correlation_id),
        "sequence": incident.sequence,
        "event_code": event_code(incident),
        "tenant_uid": incident.tenant,
        "log_name": "findings",
        "log_provider": PRODUCT,
        "labels": ["adversarial-ml", *(["drill"] if incident.signal == "drill" else [])],
        "product": _product(finding),
        **cut,
    }


def _finding_info(finding: Finding) -> Document:
    incident = finding.incident
    name, kind, algorithm = ANALYTICS[incident.signal]
    return {
        "uid": str(incident.id),
        "title": one_line(incident.title),
        "desc": summary(finding),
        "types": [event_code(incident)],
        "created_time": incident.opened_ms,
        "modified_time": incident.updated_ms,
        "first_seen_time": incident.first_seen_ms,
        "last_seen_time": incident.last_seen_ms,
        "src_url": finding.url,
        "product": _product(finding),
        "analytic": {
            "uid": event_code(incident),
            "name": name,
            **_coded("type", kind),
            "algorithm": algorithm,
            "version": finding.producer.version,
        },
        "attacks": list(_attacks(incident)),
        "related_events": [_related_event(window) for window in incident.windows],
        "related_events_count": incident.totals.alerts,
        "data_sources": sorted({f"kafka:{suspect.topic}" for suspect in incident.suspects if suspect.topic}),
        "tags": [{"name": "dedup_key", "value": incident.dedup_key}],
    }


def _attacks(incident: Incident) -> Iterator[Document]:
    """One for each technique and tactic; a technique we have no name for goes by its id."""
    for technique in incident.atlas_techniques:
        parent = atlas.parent_of(technique)
        known = atlas.TECHNIQUES.get(parent)
        named: Document = {"technique": _technique(parent)}
        if parent != technique:
            named["sub_technique"] = _technique(technique)
        for tactic in known.tactics if known else (None,):
            at = {"tactic": {"uid": tactic, "name": atlas.TACTICS[tactic]}} if tactic else {}
            yield {"version": atlas.VERSION, **at, **named}


def _technique(technique: str) -> Document:
    known = atlas.TECHNIQUES.get(technique)
    return {"uid": technique, "name": known.name if known else technique, "src_url": atlas.address(technique)}


def _related_event(window: AlertedWindow) -> Document:
    return {
        "uid": str(window.score_id),
        "type": "org.hydrophone.score.v1",
        "title": f"alert {window.alert_id}",
        **_coded("severity", Coded(LEVELS[window.severity].ocsf_id, LEVELS[window.severity].caption)),
        "first_seen_time": window.window.start_ms,
        "last_seen_time": window.window.end_ms,
        "count": window.rows_seen,
    }


def _model(model: str, role: Coded) -> Document:
    return {"uid": f"model:{model}", "name": model, "type": "AI Model", **_coded("role", role)}


def _related_models(incident: Incident) -> Iterator[Document]:
    for related in incident.related:
        yield _model(related.model, Coded(4, "Related"))


def _observables(incident: Incident) -> Iterator[Document]:
    yield {"name": "resources[0].uid", "type_id": 10, "type": "Resource UID", "value": f"model:{incident.model}"}
    for client in incident.clients[:OBSERVED_CLIENTS]:
        yield {"name": "unmapped.hydrophone.clients", "type_id": 99, "type": "Client", "value": client}


def _evidences(incident: Incident) -> Iterator[Document]:
    if incident.suspects:
        suspects = [_suspect(suspect) for suspect in incident.suspects]
        yield {"name": "hydrophone.suspects", "data": {"suspects": suspects}}
    for window in incident.windows:
        data = window.model_dump(mode="json", exclude={"severity"})
        yield {"name": "hydrophone.window", "uid": str(window.score_id), "data": data}


def _suspect(suspect: Suspect) -> Document:
    """Where the row lies in the log, so that it can be read again. Its picture (`xy`) stays with us."""
    return suspect.model_dump(mode="json", exclude={"xy"})


def _analyses(incident: Incident) -> Iterator[Document]:
    """Each branch that carried a window's maximum: how far out, in deviations of its null, whose centre is 0."""
    for carrier in incident.carriers:
        timespan = {"start_time": incident.first_seen_ms, "end_time": incident.last_seen_ms}
        measured: dict[str, Any] = {
            "observation_parameter": carrier.measure,
            "observation_type": "Two-sample statistic",
        }
        observation = {"value": plain_number(carrier.statistic), "count": carrier.windows, "timespan": timespan}
        yield {
            "analysis_targets": [{"name": f"{incident.model} {carrier.layer}", "type": "Model layer"}],
            "anomalies": [{**measured, "observations": [observation]}],
            "baselines": [{**measured, "observations": [{"value": "0"}]}],
        }


def _unmapped(finding: Finding) -> Document:
    names = {"signal", "episode_start_ms", "totals", "p_value", "statistic", "clients", "related", "confidence"}
    decisions = {"acknowledged", "suppressed", "closed"}
    told = finding.incident.model_dump(mode="json", include=names | decisions)
    return {**told, "severity_before": finding.severity_before, "instance": finding.producer.instance}
