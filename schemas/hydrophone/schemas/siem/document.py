"""Writes what `docs/siem.md` shows: `python -m hydrophone.schemas.siem.document docs`.

One example of each form, and the table of what each keeps: found out by changing one field of an incident after another
and looking whether the form changes.
"""

import functools
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from hydrophone.schemas.incidents import Finding
from hydrophone.schemas.siem.alertmanager import to_alertmanager
from hydrophone.schemas.siem.cef import to_cef
from hydrophone.schemas.siem.ecs import to_ecs
from hydrophone.schemas.siem.example import EXAMPLE, STEPS
from hydrophone.schemas.siem.leef import to_leef
from hydrophone.schemas.siem.ocsf import to_ocsf
from hydrophone.schemas.siem.splunk import to_hec
from hydrophone.schemas.siem.syslog import framed, to_syslog

__all__ = ["FORMS", "examples", "kept", "table", "with_table", "write"]

HOST: Final = "hydrophone-1"

FORMS: Final[Mapping[str, Callable[[Finding], Any]]] = {
    "OCSF": to_ocsf,
    "ECS": to_ecs,
    "CEF": to_cef,
    "LEEF": to_leef,
    "Alertmanager": to_alertmanager,
}
"""Splunk's event holds the OCSF document whole, and a syslog message the CEF line."""

_NUMBER: Final = 7
_TEXT: Final = "another"
_ID: Final = EXAMPLE.id

FACTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "incident's id, the same in all steps": {"incident.id": _ID},
    "finding's id, one for each step": {"id": EXAMPLE.incident.id},
    "sequence number": {"incident.sequence": _NUMBER},
    "dedup key": {"incident.dedup_key": _TEXT},
    "correlation id": {"incident.correlation_id": _ID},
    "action": {"action": "open"},
    "cause": {"cause": "still_seen"},
    "status": {"incident.status": "in_progress"},
    "tenant": {"incident.tenant": _TEXT},
    "model": {"incident.model": _TEXT},
    "severity": {"incident.severity": "low"},
    "severity before": {"severity_before": "low"},
    "confidence": {"incident.confidence": 0.5},
    "title": {"incident.title": _TEXT},
    "recommended action": {"incident.recommended_action": _TEXT},
    "first and last seen": {"incident.first_seen_ms": _NUMBER, "incident.last_seen_ms": _NUMBER},
    "opened": {"incident.opened_ms": _NUMBER},
    "number of alerts": {"incident.totals.alerts": _NUMBER},
    "number of rows": {"incident.totals.rows": _NUMBER},
    "number of suspects": {"incident.totals.suspects": _NUMBER},
    "number of clients": {"incident.totals.clients": _NUMBER},
    "number of models": {"incident.totals.models": _NUMBER},
    "smallest p-value": {"incident.p_value": 0.5},
    "largest statistic": {"incident.statistic": 7.0},
    "branches (layer, measure)": {"incident.carriers.0.layer": _TEXT},
    "branches: statistic, windows": {"incident.carriers.0.statistic": 7.0},
    "windows: ids of scores": {"incident.windows.1.score_id": _ID},
    "windows: ids of alerts": {"incident.windows.1.alert_id": _ID},
    "windows: times": {"incident.windows.1.window.start_ms": _NUMBER},
    "windows: rules, p-value, statistic": {"incident.windows.1.p_value": 0.5},
    "evidence: address": {"incident.windows.1.evidence.uri": _TEXT},
    "evidence: SHA-256": {"incident.windows.1.evidence.sha256": _TEXT},
    "suspects: sample id": {"incident.suspects.1.sample_id": _TEXT},
    "suspects: topic, partition, offset, row": {"incident.suspects.1.offset": _NUMBER},
    "suspects: whose, score, p-value": {"incident.suspects.1.score": 7.0},
    "suspects: place in the picture": {"incident.suspects.1.xy": (7.0, 7.0)},
    "clients": {"incident.clients.1": _TEXT},
    "related incidents": {"incident.related.0.incident_id": _ID},
    "ATLAS techniques": {"incident.atlas_techniques.1": "AML.T0042"},
    "who acknowledged, and why": {"incident.acknowledged.by": _TEXT},
    "who suppressed, and why": {"incident.suppressed.by": _TEXT},
    "suppressed until": {"incident.suppressed.until_ms": _NUMBER},
    "who closed, and why": {"incident.closed.decision.by": _TEXT},
    "verdict": {"incident.closed.verdict": "benign"},
    "address of the page": {"url": "https://another.example"},
    "version of Hydrophone": {"producer.version": _TEXT},
    "instance": {"producer.instance": _TEXT},
}
"""What may be kept or lost, and a change that shows it: the path of a field to another value."""

_TABLE: Final = re.compile(r"(?<=<!-- what each form keeps -->\n).*?(?=<!-- end -->)", re.DOTALL)


def kept(form: Callable[[Finding], Any]) -> list[bool]:
    """Of each fact whether some step of the example looks different when the fact is another."""
    before = [(step, form(step)) for step in STEPS]
    return [any(form(_changed(step, how)) != shown for step, shown in before) for how in FACTS.values()]


@functools.cache
def table() -> str:
    """In Markdown."""
    columns = [["yes" if is_kept else "" for is_kept in kept(form)] for form in FORMS.values()]
    rows = [["fact", *FORMS], ["---"] * (len(FORMS) + 1), *map(list, zip(FACTS, *columns, strict=True))]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_table(page: str) -> str:
    """The page with the table between its marks as it is today."""
    return _TABLE.sub(lambda _: table(), page)


def examples() -> dict[str, str]:
    """File name to text. All tell the same finding."""
    return {
        "ocsf.json": _pretty(to_ocsf(EXAMPLE)),
        "ecs.json": _pretty(to_ecs(EXAMPLE)),
        "hec.json": _pretty(to_hec(EXAMPLE, host=HOST, index="security")),
        "alertmanager.json": _pretty(to_alertmanager(EXAMPLE)),
        "cef.txt": to_cef(EXAMPLE) + "\n",
        "leef.txt": to_leef(EXAMPLE) + "\n",
        "syslog.txt": framed(to_syslog(EXAMPLE, hostname=HOST)).decode() + "\n",
    }


def write(docs: Path) -> None:
    (docs / "siem").mkdir(parents=True, exist_ok=True)
    for name, text in examples().items():
        (docs / "siem" / name).write_text(text, encoding="utf-8")
    page = docs / "siem.md"
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _changed(finding: Finding, changes: Mapping[str, Any]) -> Finding:
    changed = finding
    for path, value in changes.items():
        changed = _set(changed, path.split("."), value)
    return changed


def _set(value: Any, path: list[str], new: Any) -> Any:
    """The value with another at the path's end; itself where the path leads through nothing."""
    if not path:
        return new
    name, *rest = path
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _set(getattr(value, name), rest, new)})
    if isinstance(value, tuple):
        place = int(name)
        return (*value[:place], _set(value[place], rest, new), *value[place + 1 :])
    return value


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
