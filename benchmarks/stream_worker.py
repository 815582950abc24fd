"""One processor for `benchmarks/stream.py`, in a process of its own: runs until told enough, prints what it saw.

It is the processor that `hydrophone process` builds, turned by hand; what is told of windows is noted on the way.
"""

import json
import logging
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hydrophone.streams.assembly import build_runtime
from hydrophone.streams.settings import Settings

PAGE = 4096
MIB = 1 << 20


@dataclass
class Seen:
    """Times are seconds since the epoch. `tests` by score id; `resident_mib` after each told window."""

    assigned_s: float = 0.0
    first_told_s: float = 0.0
    last_record_s: float = 0.0
    records: int = 0
    cpu_s: float = 0.0
    tests: dict[str, float] = field(default_factory=dict)
    resident_mib: list[float] = field(default_factory=list)


class Watch(logging.Handler):
    """Notes assignments and told windows as the processor logs them."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        seen, extra = self._seen, record.__dict__
        if record.msg == "partitions assigned" and extra["partitions"] and not seen.assigned_s:
            seen.assigned_s, seen.cpu_s = time.time(), -cpu_s()
        elif record.msg == "window_closed":
            seen.first_told_s = seen.first_told_s or time.time()
            seen.tests[extra["score_id"]] = extra["test_ms"] / 1000
            seen.resident_mib.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / MIB)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Arguments: settings, and when to stop: after so many windows, or after silence of so many seconds."""
    settings, until = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    seen = Seen()
    log = logging.getLogger("hydrophone")
    log.setLevel(logging.INFO)
    log.addHandler(Watch(seen))
    runtime = build_runtime(Settings(**settings))
    runtime.start()
    print("ready", flush=True)
    while len(seen.tests) < until.get("windows", 10**9):
        if handled := runtime.turn():
            seen.records += handled
            seen.last_record_s = time.time()
        elif seen.records and time.time() - seen.last_record_s > until.get("silence_s", 10**9):
            break
    seen.cpu_s += cpu_s()
    runtime.close()
    print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    main()
