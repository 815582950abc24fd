r"""CEF 0: one line that ArcSight, Sentinel and most log collectors read.

Source: the Common Event Format implementation standard. In the header `\` and `|` are escaped; in values `\` and
`=`, and a line's end is the two characters `\n`. The standard knows no other control character: each becomes a space.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from hydrophone.schemas.incidents import Finding
from hydrophone.schemas.siem.fitting import fitted
from hydrophone.schemas.siem.levels import level_of, risk_of
from hydrophone.schemas.siem.lines import LINE_LIMIT, branches, cut_bytes, evidence, joined, suspects
from hydrophone.schemas.siem.wording import PRODUCT, VENDOR, event_code, one_line, plain_number, reason_of, summary

__all__ = ["to_cef"]

HEADER_LIMITS: Final = (63, 63, 31, 1_023, 512)
"""Bytes of vendor, product, version, event class and name that every reader takes."""

VALUE_LIMITS: Final = {"msg": 1_023, "reason": 1_023, "outcome": 63, "act": 63}
"""Bytes, by ArcSight's dictionary."""

CUSTOM_LIMIT: Final = 4_000
"""Bytes of a custom string, by the same."""

_LINE_END: Final = re.compile(r"\r\n?|\n|\x85|\u2028|\u2029")


def to_cef(finding: Finding) -> str:
    """At most `LINE_LIMIT` bytes of UTF-8; `flexNumber1` (untruncatedBytes) says where something is left out."""
    return fitted(finding, _rendered, LINE_LIMIT, lambda line: line.encode(errors="replace"))


def _rendered(finding: Finding, untruncated: int | None) -> str:
    """A text may be too long for its field where the line is short enough: that is told alike."""
    line = _line(finding, untruncated, _within)
    if untruncated is None and line != (whole := _line(finding, None, _whole)):
        return _line(finding, len(whole.encode()), _within)
    return line


def _line(finding: Finding, untruncated: int | None, cut: Callable[[str, int], str]) -> str:
    incident = finding.incident
    texts = (VENDOR, PRODUCT, finding.producer.version, event_code(incident), incident.title)
    header = [_header(cut(text, limit)) for text, limit in zip(texts, HEADER_LIMITS, strict=True)]
    pairs = ((key, cut(text, VALUE_LIMITS.get(key, CUSTOM_LIMIT))) for key, text in _pairs(finding, untruncated))
    body = " ".join(f"{key}={_value(text)}" for key, text in pairs if text)
    return "|".join(["CEF:0", *header, str(level_of(incident).cef), body])


def _within(text: str, limit: int) -> str:
    return cut_bytes(text, limit)


def _whole(text: str, _: int) -> str:
    return text.encode(errors="replace").decode()


def _header(text: str) -> str:
    return one_line(text).replace("\\", r"\\").replace("|", r"\|")


def _value(text: str) -> str:
    """Spaces at its ends would be taken for those between pairs."""
    plain = "\n".join(map(one_line, _LINE_END.split(text))).strip()
    return plain.replace("\\", r"\\").replace("=", r"\=").replace("\n", r"\n")


def _pairs(finding: Finding, untruncated: int | None) -> Iterator[tuple[str, str]]:
    incident, closed = finding.incident, finding.incident.closed
    yield "rt", str(incident.updated_ms)
    yield "start", str(incident.first_seen_ms)
    yield "end", str(incident.last_seen_ms)
    yield "externalId", str(incident.id)
    yield "deviceExternalId", str(finding.id)
    yield "act", finding.action
    yield "outcome", closed.verdict if closed and closed.verdict else incident.status
    yield "cat", incident.signal
    yield "cnt", str(incident.totals.alerts)
    yield "reason", reason_of(finding)
    yield "request", finding.url or ""
    yield from _custom("cs1", "model", incident.model)
    yield from _custom("cs2", "branches", branches(incident))
    yield from _custom("cs3", "atlas", joined(incident.atlas_techniques))
    yield from _custom("cs4", "clients", joined(incident.clients))
    yield from _custom("cs5", "suspects", suspects(incident))
    yield from _custom("cs6", "evidence", evidence(incident))
    yield from _custom("cn1", "sequence", str(incident.sequence))
    yield from _custom("cn2", "risk", str(risk_of(incident)))
    yield from _custom("cn3", "clientCount", str(incident.totals.clients))
    yield from _custom("cfp1", "pValue", plain_number(incident.p_value) if incident.p_value is not None else "")
    yield from _custom("cfp2", "confidence", plain_number(incident.confidence))
    yield from _custom("cfp3", "statistic", plain_number(incident.statistic) if incident.statistic is not None else "")
    yield from _custom("flexString1", "correlation", str(incident.correlation_id))
    yield from _custom("flexString2", "tenant", incident.tenant)
    yield from _custom("flexNumber1", "untruncatedBytes", str(untruncated) if untruncated else "")
    yield "msg", summary(finding)


def _custom(key: str, label: str, text: str) -> Iterator[tuple[str, str]]:
    if text:
        yield f"{key}Label", label
        yield key, text
