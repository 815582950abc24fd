"""Splunk: events for its HTTP Event Collector, and the record headers its Kafka Connect sink reads. Both carry OCSF."""

from hydrophone.schemas.incidents import Finding
from hydrophone.schemas.siem.fitting import Document
from hydrophone.schemas.siem.ocsf import to_ocsf

__all__ = ["SOURCE", "SOURCETYPE", "connect_headers", "to_hec"]

SOURCE = "hydrophone"
SOURCETYPE = "hydrophone:ocsf"


def to_hec(finding: Finding, *, host: str, index: str | None = None) -> Document:
    """One event; a request's body is many of them, one after the other, with nothing between.

    The collector does not look for duplicates: `fields` has what a search tells them by, `| dedup event_id`.
    """
    incident = finding.incident
    placed = {"index": index} if index else {}
    return {
        "time": incident.updated_ms / 1000,  # seconds, though OCSF's times are milliseconds
        "host": host,
        "source": SOURCE,
        "sourcetype": SOURCETYPE,
        **placed,
        "event": to_ocsf(finding),
        "fields": {
            "event_id": str(finding.id),
            "incident_id": str(incident.id),
            "sequence": str(incident.sequence),
            "action": finding.action,
            "severity": incident.severity,
            "model": incident.model,
            "tenant": incident.tenant,
        },
    }


def connect_headers(*, host: str, index: str | None = None) -> list[tuple[str, bytes]]:
    """Of a record that holds OCSF: with `splunk.header.support=true` the sink puts the event where these say."""
    named = {"host": host, "source": SOURCE, "sourcetype": SOURCETYPE, "index": index}
    return [(f"splunk.header.{name}", text.encode()) for name, text in named.items() if text]
