"""The traffic and the worker faults of `benchmarks/soak.py` against other stream libraries' windows.

Three workers each of a Faust windowed table and of quixstreams' tumbling `.final()`, both exactly-once, in an
environment of their own (`make streams`). The reducer is the fairest there is: the set of ids of a window, so that
repetitions and order cannot matter, told whole. A window is right with or without the rows that came too late. Records
far in the future are left out: an engine that believes them closes every window. So are faults of the broker.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.harness import HERE, RESULTS, provenance
from benchmarks.soak import MODELS, PARTITIONS, WORKERS, play
from benchmarks.soak_faults import Crew, Launch, Trouble
from benchmarks.soak_traffic import WINDOW_MS, Sent, plan
from confluent_kafka import Producer
from deploy.broker.kraft import KraftBroker
from tests.support.broker import create_topics, read_all

from hydrophone.streams.clock import now_ms

PYTHON: Final = HERE.parent / ".venv-streams" / "bin" / "python"
PEERS: Final = {"faust": "faust_windows.py", "quixstreams": "quix_windows.py"}
KINDS: Final = ("kill", "terminate", "storm")
FULL_S, QUICK_S = 80, 30
QUIET_S: Final = 50.0
"""Without a new window for so long, none is coming any more."""

Window = tuple[str, int]
Ids = frozenset[str]


@dataclass(frozen=True, slots=True)
class Counts:
    peer: str
    seed: int
    seconds: float
    windows: int
    missing: int
    doubled: int
    differing: int
    faults: dict[str, int]
    exits: dict[int, int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--quick", action="store_true", help="half a minute each; keeps no results")
    parser.add_argument("--calm", action="store_true", help="without faults: what is lost then, is lost by the traffic")
    parser.add_argument("--peer", choices=PEERS, action="append", help="only this one")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seconds = QUICK_S if options.quick else FULL_S
    calms = (True,) if options.calm else (False,) if options.quick else (False, True)
    found = [measure(name, options.seed, seconds, calm) for name in options.peer or PEERS for calm in calms]
    for counts in found:
        print(counts)
    if not options.quick:
        result = provenance(("hydrophone", "confluent-kafka")) | {
            "peers": _versions(),
            "rows": [asdict(counts) for counts in found],
        }
        (RESULTS / "soak-peers.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


def measure(peer: str, seed: int, seconds: int, is_calm: bool) -> Counts:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, KraftBroker(heap_mb=512) as broker:
        create_topics(broker.bootstrap, [("rows", PARTITIONS), ("windows", PARTITIONS)])
        with Crew(_launcher(peer, broker.bootstrap, Path(folder)), WORKERS) as crew:
            pause_s = (10 * seconds, 10 * seconds) if is_calm else (6, 12)
            trouble = Trouble(seed, crew, broker, kinds=KINDS, pause_s=pause_s)
            entries = plan(seed, seconds, MODELS, with_skew=False)
            start_ms = _send_all(broker.bootstrap, entries, trouble)
            told = _settle(broker.bootstrap, crew)
    expected, late = _expected(entries, start_ms)
    counted = Counter(window for window, _ in told)
    differing = [window for window, ids in told if window in expected and not _is_right(ids, expected[window], late)]
    return Counts(
        peer,
        seed,
        round(time.monotonic() - began),
        len(expected),
        len(expected.keys() - counted.keys()),
        sum(times > 1 for window, times in counted.items() if window in expected),
        len(set(differing)),
        dict(trouble.injected),
        dict(crew.exits),
    )


def _launcher(peer: str, bootstrap: str, folder: Path) -> Launch:
    def launch(place: int, _: str) -> "subprocess.Popen[bytes]":
        program = HERE / "peers" / PEERS[peer]
        command = [str(part) for part in (PYTHON, program, bootstrap, "rows", "windows", "soak", folder, place)]
        with (folder / f"worker-{place}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    return launch


def _send_all(bootstrap: str, entries: Sequence[Sent], trouble: Trouble) -> int:
    """Everything at its time, then a row of each model far ahead, which closes what is open. Gives the start."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5, "log_level": 2}
    )
    start_ms = now_ms() // WINDOW_MS * WINDOW_MS

    def send(entry: Sent) -> None:
        _produce(producer, entry.model, entry.name, start_ms + entry.times_ms[0])

    play(entries, send, trouble, start_ms)
    for model in MODELS:
        _produce(producer, model, "end", now_ms() + 30_000)
    assert producer.flush(60) == 0, "everything was delivered"
    return start_ms


def _produce(producer: Producer, model: str, name: str, time_ms: int) -> None:
    value = json.dumps({"id": name, "t": time_ms / 1_000}).encode()
    producer.produce("rows", value, model, timestamp=time_ms)
    producer.poll(0)


def _settle(bootstrap: str, crew: Crew) -> list[tuple[Window, Ids]]:
    """Everything told, once nothing new has come for a while. Nobody is killed any more."""
    told: list[tuple[Window, Ids]] = []
    changed = time.monotonic()
    while time.monotonic() < changed + QUIET_S:
        crew.tend()
        now = [json.loads(record.value or b"{}") for record in read_all(bootstrap, "windows")]
        if len(now) != len(told):
            changed = time.monotonic()
        told = [((one["model"], one["start"]), frozenset(one["ids"])) for one in now]
        time.sleep(2)
    return told


def _expected(entries: Sequence[Sent], start_ms: int) -> tuple[dict[Window, Ids], Ids]:
    """The ids of each window that came in time, and those that came too late for any."""
    windows: dict[Window, set[str]] = {}
    for entry in entries:
        if not entry.is_late:
            start = (start_ms + entry.times_ms[0]) // WINDOW_MS * WINDOW_MS
            windows.setdefault((entry.model, start), set()).add(entry.name)
    return {window: frozenset(ids) for window, ids in windows.items()}, frozenset(e.name for e in entries if e.is_late)


def _is_right(ids: Ids, expected: Ids, late: Ids) -> bool:
    return expected <= ids <= expected | late


def _versions() -> dict[str, str]:
    program = "from importlib.metadata import version as v; print(*(v(n) for n in ('faust-streaming', 'quixstreams')))"
    done = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True, check=True)
    return dict(zip(("faust-streaming", "quixstreams"), done.stdout.split(), strict=True))


if __name__ == "__main__":
    sys.exit(main())
