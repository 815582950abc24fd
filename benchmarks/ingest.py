"""How fast the processor takes records in: against a bare loop that only asks each record for its length.

Both read the same topic of a real Kafka broker, in turn, each in a fresh process that reads the whole topic once and
counts from the end of a warm-up to the last batch. Frames are 64 rows of 256 float32. The processor does all its work:
decode, window, sample, test on close, transactions; the time of the tests themselves is taken out of the rate and told
beside it, because it depends on k and the permutations, not on the records. Run with `python -m benchmarks.ingest`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from benchmarks.harness import HERE, Measured, run
from confluent_kafka import Producer
from deploy.broker.kraft import KraftBroker

from hydrophone.detectors import fit_reference
from hydrophone.schemas import Frame
from hydrophone.streams.kafka.admin import create_topics
from hydrophone.streams.topics import ACTIVATIONS

ROWS: Final = 64
D: Final = 256
WINDOW_MS: Final = 10_000
MODEL: Final = "bench"
Side = Literal["bare", "unsaturated", "saturated"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """How many frames fall into a window, and how many of its rows are sampled."""

    frames_per_window: int
    k: int


TRAFFIC: Final = {"unsaturated": Traffic(25, 2_048), "saturated": Traffic(500, 512)}
"""1,600 rows of which all are kept, so that a window is closed, gathered and told every 25 records; and 32,000 rows of
which the usual number is kept. At the rates measured here a window of a minute holds millions."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One worker's run: records a second without the tests, seconds in tests, memory after each window."""

    rate: float
    test_s: float
    resident_mib: list[float]


def main() -> int:
    return run("ingest", measure)


def measure(is_quick: bool) -> Iterator[Measured]:
    frames, rounds, memory_windows = (2_500, 1, 24) if is_quick else (5_000, 3, 204)
    with tempfile.TemporaryDirectory() as folder, KraftBroker(heap_mb=1024) as broker:
        references = Path(folder)
        fit_reference([frame(0, seed) for seed in range(10)], permutations=19).save(references / "full")
        yield from rates(broker.bootstrap, references, frames, rounds)
        prefix = fill(broker.bootstrap, memory_windows, frames_per_window=40)
        yield memory(broker.bootstrap, prefix, references, memory_windows)


def frame(time_ms: int, seed: int) -> Frame:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((ROWS, D)).astype(np.float32)
    ids = [f"request-{seed}-{row}" for row in range(ROWS)]
    return Frame(
        MODEL,
        {"hidden": values},
        event_time_ms=np.full(ROWS, time_ms),
        sample_ids=ids,
        predicted=rng.integers(0, 10, ROWS),
    )


def fill(bootstrap: str, windows: int, *, frames_per_window: int) -> str:
    """A fresh set of topics with whole windows of frames on one partition; gives its prefix."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}."
    kafka = {"bootstrap.servers": bootstrap}
    create_topics(kafka, prefix=prefix, partitions=1)
    producer = Producer({**kafka, "linger.ms": 20, "queue.buffering.max.kbytes": 262_144})
    for window in range(windows + 1):
        for place in range(frames_per_window if window < windows else 1):
            # The last frame is dated late enough to close all windows at once: silence would close them by the clock.
            late = 2 * WINDOW_MS if window == windows else 0
            time_ms = window * WINDOW_MS + place * WINDOW_MS // frames_per_window + late
            value = frame(time_ms, window * frames_per_window + place).encode()
            producer.produce(ACTIVATIONS.full_name(prefix), key=MODEL.encode(), value=value)
            producer.poll(0)
            if len(producer) > 1000:
                producer.flush()
    producer.flush()
    return prefix


def rates(bootstrap: str, folder: Path, frames: int, rounds: int) -> Iterator[Measured]:
    """Records a second of each side, in turn; the median of the ratios."""
    sides: tuple[Side, ...] = ("bare", "unsaturated", "saturated")
    windows = {side: frames // traffic.frames_per_window for side, traffic in TRAFFIC.items()}
    prefixes = {
        side: fill(bootstrap, windows[side], frames_per_window=traffic.frames_per_window)
        for side, traffic in TRAFFIC.items()
    }
    found: dict[Side, list[Reading]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in sides[turn % 3 :] + sides[: turn % 3]:
            read = "saturated" if side == "bare" else side
            found[side].append(worker(bootstrap, prefixes[read], folder, side, windows[read]))
    rates = {side: [reading.rate for reading in readings] for side, readings in found.items()}
    for side in sides[1:]:
        ratios = [mine / bare for mine, bare in zip(rates[side], rates["bare"], strict=True)]
        mine, bare = statistics.median(rates[side]), statistics.median(rates["bare"])
        tests = statistics.median(reading.test_s for reading in found[side]) / windows[side] * 1000
        traffic = TRAFFIC[side]
        detail = (
            f"{mine:,.0f} against {bare:,.0f} frames/s, medians of {rounds}; "
            f"{traffic.frames_per_window} frames a window, k={traffic.k}, {tests:.0f} ms a test"
        )
        yield Measured(side, statistics.median(ratios), detail)


def memory(bootstrap: str, prefix: str, folder: Path, windows: int) -> Measured:
    """Resident memory after the last windows over that after a tenth of them."""
    resident = worker(bootstrap, prefix, folder, "saturated", windows).resident_mib
    early = statistics.median(resident[windows // 10 - 2 : windows // 10 + 3])
    late = statistics.median(resident[-5:])
    detail = f"{late:.0f} MiB after {len(resident)} windows, {early:.0f} MiB after {windows // 10}"
    return Measured("memory-200-windows", late / early, detail)


def worker(bootstrap: str, prefix: str, folder: Path, side: Side, windows: int) -> Reading:
    command = [sys.executable, "-m", "benchmarks.ingest_worker", side, bootstrap, prefix, str(folder), str(windows)]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the {side} worker failed: {done.stderr[-2000:]}")
    return Reading(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
