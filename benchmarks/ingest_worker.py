"""One side of `benchmarks/ingest.py`, in a process of its own: reads a topic once and prints what it found as JSON."""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.ingest import TRAFFIC
from confluent_kafka import TopicPartition

from hydrophone.streams import under_way
from hydrophone.streams.assembly import build_runtime
from hydrophone.streams.judge import Examined, Judge, Question
from hydrophone.streams.kafka import clients
from hydrophone.streams.kafka.groups import membership
from hydrophone.streams.settings import Settings
from hydrophone.streams.topics import ACTIVATIONS

PATIENCE_S: Final = 300.0
PAGE: Final = 4096
WARM_UP_RECORDS: Final = 1_500
"""More than the client fetches ahead (64 MiB), so that what is timed is what the broker sends meanwhile."""

MIB: Final = 1 << 20

T = TypeVar("T")


class Stopwatch:
    """Records counted after the warm-up, so that neither side is charged for finding the broker."""

    def __init__(self) -> None:
        self.started = 0.0
        self.records = 0
        self._warm = 0

    def batch(self, records: int) -> None:
        if self.started:
            self.records += records
            return
        self._warm += records
        if self._warm >= WARM_UP_RECORDS:
            self.started = time.perf_counter()

    def rate(self, without_s: float = 0.0) -> float:
        return self.records / (time.perf_counter() - self.started - without_s)


class AtOnce(Executor):
    """Tests where they are asked for, so that their time can be taken out of the rate."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, fn: Callable[..., T], /, *args: object, **kwargs: object) -> "Future[T]":
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def bare(bootstrap: str, prefix: str) -> dict[str, object]:
    """consume(500) and the length of each value, with the processor's own consumer settings."""
    consumer = clients.consumer(
        {"bootstrap.servers": bootstrap},
        group=f"bare-{time.time_ns()}",
        client_id="bare",
        member=membership("classic", None),
    )
    topic = ACTIVATIONS.full_name(prefix)
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
    consumer.assign([TopicPartition(topic, 0, 0)])
    watch, seen, size = Stopwatch(), 0, 0
    while seen < end:
        batch = [message for message in consumer.consume(500, timeout=0.05) if message.error() is None]
        for message in batch:
            size += len(message.value() or b"")
        seen += len(batch)
        watch.batch(len(batch))
    result = {"rate": watch.rate(), "test_s": 0.0, "resident_mib": []}
    consumer.close()
    return result


def processor(bootstrap: str, prefix: str, folder: Path, side: str, windows: int) -> dict[str, object]:
    """The processor as `hydrophone process` builds it, turned until it has closed all windows."""
    watch, test_s, resident = Stopwatch(), 0.0, []
    examine_plainly = Judge.examine

    def examine(self: Judge, question: Question) -> Examined:
        nonlocal test_s
        start = time.perf_counter()
        examined = examine_plainly(self, question)
        if watch.started:
            test_s += time.perf_counter() - start
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / MIB)
        return examined

    Judge.examine = examine  # type: ignore[method-assign]
    under_way.ThreadPoolExecutor = AtOnce  # type: ignore[assignment, attr-defined]
    runtime = build_runtime(
        Settings(
            bootstrap=bootstrap,
            topic_prefix=prefix,
            group=f"{side}-{time.time_ns()}",
            reference=(folder / "full",),
            window_ms=10_000,
            k=TRAFFIC[side].k,
            evidence=None,
            device="cpu",
        )
    )
    runtime.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(resident) < windows and time.monotonic() < deadline:
        watch.batch(runtime.turn())
    result = {"rate": watch.rate(test_s), "test_s": test_s, "resident_mib": resident}
    runtime.close()
    return result


if __name__ == "__main__":
    side, bootstrap, prefix, folder, windows = sys.argv[1:]
    found = (
        bare(bootstrap, prefix) if side == "bare" else processor(bootstrap, prefix, Path(folder), side, int(windows))
    )
    print(json.dumps(found))
