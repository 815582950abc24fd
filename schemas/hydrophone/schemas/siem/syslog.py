"""RFC 5424 syslog messages, and their framing on a connection (RFC 6587 section 3.4.1, RFC 5425 section 4.3).

Connections are not made here. No byte order mark is sent: RFC 5424 would have one before UTF-8, but receivers leave it
in the message, where it hides the `CEF:` that parsers look for at its beginning.
"""

import re
from typing import Final

from hydrophone.schemas.incidents import Finding
from hydrophone.schemas.siem.cef import to_cef
from hydrophone.schemas.siem.levels import level_of
from hydrophone.schemas.siem.lines import cut_bytes
from hydrophone.schemas.siem.wording import PRODUCT, iso_time, one_line

__all__ = ["LOG_AUDIT", "MESSAGE_LIMIT", "framed", "syslog_message", "to_syslog"]

LOG_AUDIT: Final = 13
"""The facility; its number times 8 plus the severity is the priority."""

MESSAGE_LIMIT: Final = 8_192
"""Bytes: what RFC 5425 asks receivers to take, and rsyslog's own default."""

_UNPRINTABLE: Final = re.compile(r"[^!-~]+")
_SPECIAL: Final = re.compile(r'(["\\\]])')


def to_syslog(finding: Finding, *, hostname: str, process_id: str = "-") -> bytes:
    """The finding's CEF line as a message; on a connection each must be `framed`."""
    return syslog_message(
        to_cef(finding),
        severity=level_of(finding.incident).syslog,
        time_ms=finding.incident.updated_ms,
        hostname=hostname,
        process_id=process_id,
        message_id=finding.action,
        version=finding.producer.version,
    )


def syslog_message(
    text: str,
    *,
    severity: int,
    time_ms: int,
    hostname: str,
    process_id: str = "-",
    message_id: str = "-",
    version: str = "",
    facility: int = LOG_AUDIT,
) -> bytes:
    """One line, at most `MESSAGE_LIMIT` bytes: a relay may divide by lines, and a line's end would forge a message."""
    header = (
        f"<{facility * 8 + severity}>1 {iso_time(time_ms)} {_field(hostname, 255)} {_field(PRODUCT, 48)} "
        f"{_field(process_id, 128)} {_field(message_id, 32)} {_origin(version)} "
    )
    return cut_bytes(header + one_line(text), MESSAGE_LIMIT).encode()


def framed(message: bytes) -> bytes:
    """By counting bytes, so that nothing in a message can end it."""
    return b"%d %b" % (len(message), message)


def _field(text: str, limit: int) -> str:
    """A header field holds printable ASCII without spaces; `-` stands for nothing."""
    return _UNPRINTABLE.sub("_", text)[:limit] or "-"


def _origin(version: str) -> str:
    """Structured data by one of the ids that need no enterprise number of our own."""
    escaped = _SPECIAL.sub(r"\\\1", cut_bytes(one_line(version), 32))
    return f'[origin software="{PRODUCT}" swVersion="{escaped}"]' if escaped else f'[origin software="{PRODUCT}"]'
