"""Lists of a finding as one text each, and how long a line may be. How CEF and LEEF write them is theirs."""

from collections.abc import Iterable
from typing import Final

from hydrophone.schemas.incidents import Incident
from hydrophone.schemas.score import Suspect
from hydrophone.schemas.siem.wording import one_line

__all__ = ["LINE_LIMIT", "branches", "cut_bytes", "evidence", "joined", "suspects"]

LINE_LIMIT: Final = 7_400
"""Bytes of a line. Syslog receivers take 8,192 with the header, ours is shorter than the difference."""


def cut_bytes(text: str, limit: int) -> str:
    """The beginning of the text, whole characters, at most so many bytes of UTF-8."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def joined(entries: Iterable[str]) -> str:
    return ", ".join(one_line(entry) for entry in entries)


def branches(incident: Incident) -> str:
    return joined(f"{carrier.layer} ({carrier.measure})" for carrier in incident.carriers)


def suspects(incident: Incident) -> str:
    """By name where they have one, with their place in the log: enough to read them again."""
    return joined(_named(suspect) for suspect in incident.suspects)


def evidence(incident: Incident) -> str:
    return joined(window.evidence.uri for window in incident.windows if window.evidence)


def _named(suspect: Suspect) -> str:
    name = suspect.sample_id or str(suspect.frame_id)
    if suspect.topic is None:
        return f"{name}/{suspect.row}"
    return f"{name}@{suspect.topic}/{suspect.partition}/{suspect.offset}/{suspect.row}"
