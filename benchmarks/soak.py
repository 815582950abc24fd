"""Three workers, a broker and a seeded series of faults; then every window is compared with a batch recomputation.

The faults are 1 to 8 of docs/reliability.md: workers killed, frozen past their session, drained and storming, a broker
killed and frozen, records repeated, disordered, late, from clocks an hour off, and silence. Run `make soak`; `--seed`
runs a series again. Ctrl-C ends everything it started.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.harness import Measured, run
from benchmarks.soak_faults import SESSION_MS, Crew, Launch, Trouble
from benchmarks.soak_traffic import LATENESS_MS, WINDOW_MS, Sent, plan
from confluent_kafka import Producer
from deploy.broker.kraft import KraftBroker
from tests.support.batch import BatchRules
from tests.support.broker import read_all
from tests.support.forked import Forked, Running
from tests.support.processor import (
    SAMPLING_KEY,
    WIDTH,
    await_until,
    environment,
    frame_at,
    make_topics,
    small_reference,
)
from tests.support.reckoning import Reckoning, expected_windows, late_rows, reckon
from tests.support.stage import TIMES

from hydrophone.schemas.frame import Heartbeat
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import ACTIVATIONS, LATE, SCORES

WORKERS: Final = 3
PARTITIONS: Final = 6
MODELS: Final = tuple(f"model-{number}" for number in range(16))
K: Final = 24
PREFIX: Final = "soak."
RULES: Final = BatchRules(
    WINDOW_MS, LATENESS_MS, TIMES["future_skew_ms"], K, SAMPLING_KEY, {model: {"fc": WIDTH} for model in MODELS}
)
IDLE_MS: Final = 5_000
SESSION: Final = {
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.heartbeat.interval.ms": "1000",
}
"""The broker's word on how soon a silent worker is given up."""

FULL_S, QUICK_S = 180, 40
SETTLE_S: Final = 180.0
INTERRUPTED: Final = 130


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options, rest = parser.parse_known_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"seed {options.seed}: run it again with `python -m benchmarks.soak --seed {options.seed}`", file=sys.stderr)
    try:
        return _run(options.seed, rest)
    except KeyboardInterrupt:
        print("interrupted: workers and broker are gone", file=sys.stderr)
        return INTERRUPTED


def _run(seed: int, rest: list[str]) -> int:
    return run("soak", lambda is_quick: measure(seed, is_quick=is_quick), arguments=rest)


def measure(seed: int, *, is_quick: bool) -> Iterator[Measured]:
    seconds = QUICK_S if is_quick else FULL_S
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, KraftBroker(SESSION, heap_mb=512) as broker:
        found, trouble, exits = soak(seed, seconds, broker, Path(folder))
    told = ", ".join(f"{kind} {times}" for kind, times in sorted(trouble.items()))
    detail = f"seed {seed}, {time.monotonic() - began:.0f} s, {WORKERS} workers, {sum(trouble.values())} faults: {told}"
    for name, value in found.faults.items():
        print(f"{name}: {value}", file=sys.stderr)
    print(f"workers ended with {dict(exits)}", file=sys.stderr)
    yield Measured("missing", len(found.missing), detail)
    yield Measured("doubled", len(found.doubled), detail)
    yield Measured(
        "differing",
        len(found.differing) + len(found.unaccounted),
        f"{len(found.batch.late)} late records and {found.batch.duplicates} repeated ones are accounted for",
    )
    yield Measured("windows", len(found.batch.windows), f"{len(found.scores)} scores of {len(MODELS)} models")


def soak(seed: int, seconds: int, broker: KraftBroker, folder: Path) -> tuple[Reckoning, Counter[str], Counter[int]]:
    make_topics(broker.bootstrap, PREFIX, partitions=PARTITIONS)
    references = {model: small_reference(folder, model, seed=i) for i, model in enumerate(MODELS)}
    with Crew(_launcher(broker.bootstrap, folder, list(references.values())), WORKERS) as crew:
        await_until(lambda: _has_joined(folder), "the workers have joined the group", timeout_s=120)
        trouble = Trouble(seed, crew, broker, pause_s=(4, 10))
        producer = Producer(
            {"bootstrap.servers": broker.bootstrap, "partitioner": "murmur2_random", "linger.ms": 5, "log_level": 2}
        )
        start_ms = now_ms() // WINDOW_MS * WINDOW_MS

        def send(entry: Sent) -> None:
            times = [start_ms + time_ms for time_ms in entry.times_ms]
            value = frame_at(entry.model, times, entry.name).encode()
            producer.produce(ACTIVATIONS.full_name(PREFIX), value, entry.model)
            producer.poll(0)

        play(plan(seed, seconds, MODELS), send, trouble, start_ms)
        for model in MODELS:
            producer.produce(ACTIVATIONS.full_name(PREFIX), Heartbeat(model, now_ms()).encode(), model)
        if producer.flush(120):
            raise RuntimeError("not everything was delivered: the broker did not come back")
        _settle(broker.bootstrap, crew)
        crew.drain()
        return reckon(broker.bootstrap, PREFIX, RULES, references, by_clock=True), trouble.injected, crew.exits


def play(entries: Sequence[Sent], send: Callable[[Sent], None], trouble: Trouble, start_ms: int) -> None:
    """Everything at its time; what fell behind while a fault was injected is sent as fast as it goes."""
    for number, entry in enumerate(entries):
        while (ahead := start_ms + entry.due_ms - now_ms()) > 0:
            trouble.stir()
            time.sleep(min(0.05, ahead / 1_000))
        send(entry)
        if number % 20 == 0:
            _progress(number / len(entries), sum(trouble.injected.values()))
    _progress(1.0, sum(trouble.injected.values()))
    print(file=sys.stderr)


def _progress(share: float, faults: int) -> None:
    done = round(40 * share)
    print(f"\r[{'#' * done}{'.' * (40 - done)}] {share:4.0%}, {faults} faults", end="", file=sys.stderr, flush=True)


def _launcher(bootstrap: str, folder: Path, references: Sequence[Path]) -> Launch:
    times = {**TIMES, "lateness_ms": LATENESS_MS, "idle_ms": IDLE_MS}
    options = [text for name, value in times.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    options += [text for reference in references for text in ("--reference", str(reference))]
    command = ["process", "--bootstrap", bootstrap, "--prefix", PREFIX]
    command += ["--group", "soak", "--k", str(K), "--device", "cpu", "--evidence", str(folder / "evidence"), *options]

    def launch(place: int, failpoint: str) -> Running:
        variables = environment() | {"HYDROPHONE_FAILPOINT": failpoint}
        return Forked([*command, "--instance-id", f"soak-{place}"], folder, variables, folder / f"worker-{place}.log")

    return launch


def _has_joined(folder: Path) -> bool:
    logs = list(folder.glob("worker-*.log"))
    return len(logs) == WORKERS and all("partitions assigned" in log.read_text(errors="replace") for log in logs)


def _settle(bootstrap: str, crew: Crew) -> None:
    """Wait until all windows of the log have scores, tending the workers; what is missing then is missing."""
    log = read_all(bootstrap, ACTIVATIONS.full_name(PREFIX))
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        crew.tend()
        late = dict(late_rows(read_all(bootstrap, LATE.full_name(PREFIX))))
        scores = len(read_all(bootstrap, SCORES.full_name(PREFIX)))
        if scores >= len(expected_windows(log, RULES, late)):
            return
        time.sleep(2)


if __name__ == "__main__":
    sys.exit(main())
