"""How log lines look: JSON for machines, one readable line on a terminal. What is logged is up to who logs."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["configure"]

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = " ".join(f"{name}={value}" for name, value in _extra(record).items() if value is not None)
        text = CONTROL.sub("?", f"{time} {record.levelname.lower():7} {record.getMessage()} {fields}".rstrip())
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(log_format: str = "auto", level: int = logging.INFO) -> None:
    """Send Hydrophone's log to standard error; other libraries' warnings too."""
    handler = logging.StreamHandler(sys.stderr)
    wants_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler.setFormatter(_TextLines() if wants_text else _JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("hydrophone").setLevel(level)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in STANDARD}
