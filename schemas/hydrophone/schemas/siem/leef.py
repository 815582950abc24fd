"""LEEF 2.0: one line that QRadar reads, its pairs apart by tabs.

Source: IBM, Log Event Extended Format (LEEF) version 2. It has no escapes: what would divide a header or a
pair becomes a space.
"""

from collections.abc import Iterator
from typing import Final

from hydrophone.schemas.incidents import Finding
from hydrophone.schemas.siem.fitting import fitted
from hydrophone.schemas.siem.levels import level_of, risk_of
from hydrophone.schemas.siem.lines import LINE_LIMIT, branches, evidence, joined, suspects
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

__all__ = ["to_leef"]

DELIMITER: Final = "\t"
DECLARED: Final = "x09"

TIME_FORMAT: Final = "yyyy-MM-dd'T'HH:mm:ss.SSSZ"
"""As Java's SimpleDateFormat has it: its zone is written +0000, not Z."""


def to_leef(finding: Finding) -> str:
    """At most `LINE_LIMIT` bytes of UTF-8; `untruncatedBytes` says where something is left out."""
    return fitted(finding, _rendered, LINE_LIMIT, lambda line: line.encode(errors="replace"))


def _rendered(finding: Finding, untruncated: int | None) -> str:
    header = (VENDOR, PRODUCT, finding.producer.version, event_code(finding.incident), DECLARED)
    pairs = ((key, one_line(text)) for key, text in _pairs(finding, untruncated))
    body = DELIMITER.join(f"{key}={text}" for key, text in pairs if text)
    return "|".join(["LEEF:2.0", *(one_line(text).replace("|", " ") for text in header), body])


def _pairs(finding: Finding, untruncated: int | None) -> Iterator[tuple[str, str]]:
    incident = finding.incident
    yield "devTime", iso_time(incident.updated_ms).replace("Z", "+0000")
    yield "devTimeFormat", TIME_FORMAT
    yield "cat", incident.signal
    yield "sev", str(level_of(incident).cef)
    yield "resource", incident.model
    yield "url", finding.url or ""
    yield "title", incident.title
    yield "action", finding.action
    yield "status", incident.status
    yield "verdict", incident.closed.verdict or "" if incident.closed else ""
    yield "reason", reason_of(finding)
    yield "incident", str(incident.id)
    yield "finding", str(finding.id)
    yield "correlation", str(incident.correlation_id)
    yield "sequence", str(incident.sequence)
    yield "tenant", incident.tenant
    yield "firstSeen", iso_time(incident.first_seen_ms)
    yield "lastSeen", iso_time(incident.last_seen_ms)
    yield "alerts", str(incident.totals.alerts)
    yield "clientCount", str(incident.totals.clients)
    yield "confidence", plain_number(incident.confidence)
    yield "risk", str(risk_of(incident))
    yield "pValue", plain_number(incident.p_value) if incident.p_value is not None else ""
    yield "statistic", plain_number(incident.statistic) if incident.statistic is not None else ""
    yield "branches", branches(incident)
    yield "atlas", joined(incident.atlas_techniques)
    yield "clients", joined(incident.clients)
    yield "suspects", suspects(incident)
    yield "evidence", evidence(incident)
    yield "untruncatedBytes", str(untruncated) if untruncated else ""
    yield "msg", summary(finding)
