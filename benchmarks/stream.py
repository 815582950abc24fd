"""The stream side in ratios: against a bare loop and other libraries, with a guarantee and without, alone and shared.

Every row is a ratio of two sides of one run on one broker, taken in turn; medians over the rounds. Our side is the
processor that `hydrophone process` builds (`stream_worker.py`), its window tests included unless a row says otherwise.
Run with `python -m benchmarks.stream`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks import ingest
from benchmarks.harness import HERE, Measured, run
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from deploy.broker.kraft import KraftBroker
from tests.support.broker import create_topics as create_plain
from tests.support.broker import read_all

from hydrophone.detectors import fit_reference
from hydrophone.schemas import Frame, Heartbeat
from hydrophone.schemas.operations import ShardPlan
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.checkpoint import Checkpoint
from hydrophone.streams.kafka.admin import create_topics
from hydrophone.streams.kafka.clients import consumer
from hydrophone.streams.kafka.groups import membership
from hydrophone.streams.shards import ShardPlans
from hydrophone.streams.topics import ACTIVATIONS, SCORES

PEERS_PYTHON: Final = HERE.parent / ".venv-streams" / "bin" / "python"
SATURATED: Final = ingest.TRAFFIC["saturated"]
SMALL_ROWS: Final = 16
SMALL_D: Final = 64
PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is sent and how often it is repeated."""

    rounds: int
    frames: int
    peer_frames: int
    memory_windows: int
    replayed: int
    live_s: int
    shared: int


FULL: Final = Effort(
    rounds=5, frames=8_000, peer_frames=2_000, memory_windows=204, replayed=120_000, live_s=60, shared=6_000
)
QUICK: Final = Effort(
    rounds=1, frames=2_500, peer_frames=800, memory_windows=24, replayed=6_000, live_s=8, shared=1_500
)


def main() -> int:
    return run("stream", measure)


def measure(is_quick: bool) -> Iterator[Measured]:
    effort = QUICK if is_quick else FULL
    with tempfile.TemporaryDirectory() as name, KraftBroker(heap_mb=1024) as broker:
        bench = Bench(broker.bootstrap, Path(name), effort)
        yield from bench.rates()
        yield bench.recovery()
        yield bench.cost_of_sharing()
        yield bench.close_latency()
        yield from bench.memory()
        yield bench.hot_model()


class Bench:
    """One broker, one folder, references for the two sizes of frames."""

    def __init__(self, bootstrap: str, folder: Path, effort: Effort) -> None:
        self.bootstrap, self.folder, self.effort = bootstrap, folder, effort
        frames = [ingest.frame(0, seed) for seed in range(10)]
        fit_reference(frames, permutations=19).save(folder / "full")

    # -- rates --------------------------------------------------------------------------------------------------------

    def rates(self) -> Iterator[Measured]:
        """64 x 256 float32 on one partition; tests are taken out of our rate where the other side has none. The other
        libraries get a reducer that keeps what our windows keep (`peers/reducer.py`)."""
        effort = self.effort
        prefix = ingest.fill(self.bootstrap, self._windows, frames_per_window=SATURATED.frames_per_window)
        plain = self._copy_with_event_time(effort.peer_frames)
        sides: dict[str, Callable[[], float]] = {
            "bare": lambda: self._ingest(prefix, "bare"),
            "ours": lambda: self._ingest(prefix, "saturated"),
            "quixstreams": lambda: self._peer("quix_rate.py", plain),
            "faust": lambda: self._peer("faust_rate.py", plain),
            "exactly-once": lambda: self._guaranteed(prefix, "exactly-once"),
            "at-least-once": lambda: self._guaranteed(prefix, "at-least-once"),
        }
        if not PEERS_PYTHON.exists():
            print("the other libraries are not installed (`make streams`): their rows are left out", file=sys.stderr)
            sides = {name: side for name, side in sides.items() if name not in ("quixstreams", "faust")}
        found = in_turn(sides, effort.rounds)
        yield ratio("ingest-over-bare", found, "ours", "bare")
        if PEERS_PYTHON.exists():
            yield ratio("vs-quixstreams", found, "ours", "quixstreams")
            yield ratio("vs-faust-table", found, "ours", "faust")
        yield ratio("exactly-once-over-off", found, "exactly-once", "at-least-once")

    @property
    def _windows(self) -> int:
        return self.effort.frames // SATURATED.frames_per_window

    def _ingest(self, prefix: str, side: ingest.Side) -> float:
        return ingest.worker(self.bootstrap, prefix, self.folder, side, self._windows).rate

    def _copy_with_event_time(self, frames: int) -> str:
        """The same frames, with event time as Kafka's timestamp: where the other libraries look for it."""
        topic = f"plain-{uuid.uuid4().hex[:8]}"
        create_plain(self.bootstrap, [(topic, 1)], configs={"retention.ms": "-1"})  # its dates are long past
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 20})
        for number in range(frames):
            time_ms = number * ingest.WINDOW_MS // SATURATED.frames_per_window
            value = ingest.frame(time_ms, number).encode()
            producer.produce(topic, key=ingest.MODEL, value=value, timestamp=time_ms + 1)
            if len(producer) > 1000:
                producer.flush()
        producer.flush()
        return topic

    def _peer(self, program: str, topic: str) -> float:
        total = self.effort.peer_frames
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            arguments = [topic, f"g-{uuid.uuid4().hex[:8]}", folder, ingest.WINDOW_MS, total // 4, total]
            command = [PEERS_PYTHON, HERE / "peers" / program, self.bootstrap, *arguments]
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, timeout=600, check=False, cwd=folder
            )
        found = [line for line in done.stdout.splitlines() if line.startswith('{"rate"')]
        if done.returncode != 0 or not found:
            raise RuntimeError(f"`{program}` failed: {done.stderr[-2000:]}")
        return float(json.loads(found[-1])["rate"])

    def _guaranteed(self, prefix: str, guarantee: str) -> float:
        """Frames a second from assignment to the last, tests and commits included."""
        settings = self._settings(prefix, guarantee=guarantee, window_ms=ingest.WINDOW_MS, k=SATURATED.k)
        seen = finish(start(settings, {"windows": self._windows}))
        return float(seen["records"] / (seen["last_record_s"] - seen["assigned_s"]))

    # -- recovery -----------------------------------------------------------------------------------------------------

    def recovery(self) -> Measured:
        """One worker is killed when it has read a long window; the time its survivor needs, from its assignment to the
        window's score, over the records to be read again at the steady rate of the first."""
        ratios, details = [], []
        for _ in range(1 if self.effort.rounds == 1 else 3):
            prefix = self._topics(1)
            self._send(prefix, ["bench"], self.effort.replayed, span_ms=500_000)
            settings = self._settings(prefix, window_ms=600_000, k=256, reference=[self._small_reference("bench")])
            with ExitStack() as stack:
                first = stack.enter_context(running(settings, {}))
                steady = self._rate_until_read(settings, prefix, self.effort.replayed)
                second = stack.enter_context(running(settings, {"windows": 1}))
                assert second.stdout is not None
                second.stdout.readline()
                time.sleep(5)  # joined, and without a partition
                first.kill()
                self._beat(prefix, ["bench"])
                seen = finish(second)
            taken = seen["first_told_s"] - seen["assigned_s"] - sum(seen["tests"].values())
            ideal = self.effort.replayed / steady
            ratios.append(taken / ideal)
            details.append(f"{taken:.1f} s against {ideal:.1f} s")
        return Measured("recovery-over-ideal", statistics.median(ratios), "; ".join(details))

    def _rate_until_read(self, settings: dict[str, Any], prefix: str, records: int) -> float:
        """Records a second of a worker, as its committed positions tell."""
        asker = Consumer({"bootstrap.servers": self.bootstrap, "group.id": settings["group"]})
        place = TopicPartition(ACTIVATIONS.full_name(prefix), 0)
        readings: list[tuple[float, int]] = []
        deadline = time.monotonic() + PATIENCE_S
        while not readings or readings[-1][1] < records:
            assert time.monotonic() < deadline, "the first worker did not read everything in time"
            found = Checkpoint.decode(asker.committed([place], 10)[0].metadata, window_ms=settings["window_ms"])
            if found is not None and (not readings or found.position > readings[-1][1]):
                readings.append((time.monotonic(), found.position))
            time.sleep(0.1)
        asker.close()
        (began, low), (ended, high) = readings[0], readings[-1]
        return (high - low) / (ended - began)

    # -- sharing, latency, memory -------------------------------------------------------------------------------------

    def cost_of_sharing(self) -> Measured:
        """CPU seconds of two workers over those of one, for the same records on four partitions."""
        models = [f"model-{number}" for number in range(12)]
        prefix = self._topics(4)
        self._send(prefix, models, self.effort.shared, span_ms=100_000)
        self._beat(prefix, models)
        references = [self._small_reference(model) for model in models]
        cpu: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(min(3, self.effort.rounds)):
            for workers in (1, 2):
                settings = self._settings(prefix, window_ms=5_000, k=256, reference=references)
                with ExitStack() as stack:
                    running_ones = [stack.enter_context(running(settings, {"silence_s": 15})) for _ in range(workers)]
                    seen = [finish(worker) for worker in running_ones]
                cpu[workers].append(sum(one["cpu_s"] for one in seen))
        one, two = statistics.median(cpu[1]), statistics.median(cpu[2])
        gib = self.effort.shared * SMALL_ROWS * SMALL_D * 4 / 2**30
        detail = f"{two / gib:.1f} against {one / gib:.1f} CPU s per GiB of rows, tests included"
        return Measured("cpu-per-gb-two-over-one", two / one, detail)

    def close_latency(self) -> Measured:
        """Live traffic: from the broker's stamp on the record that closed a window to the one on its score, without the
        test's own time."""
        models = [f"model-{number}" for number in range(4)]
        prefix = self._topics(1)
        settings = self._settings(
            prefix, window_ms=1_000, k=256, reference=[self._small_reference(model) for model in models]
        )
        with running(settings, {"windows": (self.effort.live_s - 4) * len(models)}) as worker:
            assert worker.stdout is not None
            worker.stdout.readline()
            self._live(prefix, models)
            tests = finish(worker)["tests"]
        closed_ms = {r.offset: r.timestamp_ms for r in read_all(self.bootstrap, ACTIVATIONS.full_name(prefix))}
        waits = []
        for record in read_all(self.bootstrap, SCORES.full_name(prefix)):
            score = WindowScore.model_validate_json(record.value or b"")
            if score.source is not None and str(score.id) in tests:
                closing = closed_ms[score.source.close_offset - 1]
                waits.append(record.timestamp_ms - closing - 1000 * tests[str(score.id)])
        detail = f"{len(waits)} windows; median {statistics.median(waits):.0f} ms"
        return Measured("close-latency-p99", float(np.percentile(waits, 99)), detail)

    def _live(self, prefix: str, models: Sequence[str]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 0, "partitioner": "murmur2_random"})
        until = time.time() + self.effort.live_s
        number = 0
        while time.time() < until:
            for model in models:
                value = small_frame(model, int(time.time() * 1000), number).encode()
                producer.produce(ACTIVATIONS.full_name(prefix), key=model, value=value)
                number += 1
            producer.flush()
            time.sleep(0.1)

    def memory(self) -> Iterator[Measured]:
        prefix = ingest.fill(self.bootstrap, self.effort.memory_windows, frames_per_window=40)
        flat = ingest.memory(self.bootstrap, prefix, self.folder, self.effort.memory_windows)
        yield Measured("memory-200-over-20", flat.value, flat.detail)
        resident = {}
        windows = 8 if self.effort.rounds == 1 else 24
        for frames in (40, 400):
            prefix = ingest.fill(self.bootstrap, windows, frames_per_window=frames)
            seen = ingest.worker(self.bootstrap, prefix, self.folder, "saturated", windows).resident_mib
            resident[frames] = statistics.median(seen[-5:])
        detail = f"{resident[400]:.0f} MiB against {resident[40]:.0f} MiB after {windows} windows"
        yield Measured("memory-10x-rate", resident[400] / resident[40], detail)

    def hot_model(self) -> Measured:
        """Nine tenths of the bytes are one model's: the busiest of four workers' share with four shards over without,
        the median over names, since keys fall where their hash says. Workers are members of a real group."""
        prefix = self._topics(12)
        ratios = []
        with ExitStack() as stack:
            owners = self._owners(stack, ACTIVATIONS.full_name(prefix), workers=4)
            for number in range(5 if self.effort.rounds == 1 else 40):
                plain, sharded = (self._busiest(prefix, owners, f"hot-{number}", shards) for shards in (1, 4))
                ratios.append(sharded / plain)
        low, high = np.percentile(ratios, [10, 90])
        detail = f"median over {len(ratios)} names of the hot model; from {low:.2f} to {high:.2f} (10 % to 90 %)"
        return Measured("hot-model-share", statistics.median(ratios), detail)

    def _owners(self, stack: ExitStack, topic: str, *, workers: int) -> dict[int, int]:
        """Partition to worker, as the group assigns them."""
        members = []
        group = f"bench-{uuid.uuid4().hex[:8]}"
        for number in range(workers):
            member = consumer(
                {"bootstrap.servers": self.bootstrap},
                group=group,
                client_id=f"w{number}",
                member=membership("classic", None),
            )
            member.subscribe([topic])
            stack.callback(member.close)
            members.append(member)
        deadline = time.monotonic() + PATIENCE_S
        while sorted(len(member.assignment()) for member in members) != [12 // workers] * workers:
            assert time.monotonic() < deadline, "the group did not settle in time"
            for member in members:
                member.consume(100, timeout=0.1)
        return {place.partition: number for number, member in enumerate(members) for place in member.assignment()}

    def _busiest(self, prefix: str, owners: dict[int, int], hot: str, shards: int) -> float:
        """The largest share of bytes that one worker gets, of 400 frames, 360 of them the hot model's."""
        plans = ShardPlans([ShardPlan(model=hot, shards=shards, effective_from_ms=0)])
        shares: dict[int, int] = dict.fromkeys(owners.values(), 0)

        def count(_: object, message: Message) -> None:
            shares[owners[message.partition() or 0]] += len(message.value() or b"")

        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5, "partitioner": "murmur2_random"})
        for number in range(400):
            model = hot if number % 10 else f"light-{number // 10 % 9}"
            frame = small_frame(model, 600_000_000, number)
            key = plans.key(model, frame.frame_id, 600_000_000)
            producer.produce(ACTIVATIONS.full_name(prefix), key=key, value=frame.encode(), on_delivery=count)
        assert producer.flush(60) == 0, "every frame has a partition"
        return max(shares.values()) / sum(shares.values())

    # -- what they share ----------------------------------------------------------------------------------------------

    def _topics(self, partitions: int) -> str:
        prefix = f"bench-{uuid.uuid4().hex[:8]}."
        create_topics({"bootstrap.servers": self.bootstrap}, prefix=prefix, partitions=partitions)
        return prefix

    def _settings(self, prefix: str, **settings: Any) -> dict[str, Any]:
        return {
            "bootstrap": self.bootstrap,
            "topic_prefix": prefix,
            "group": f"bench-{uuid.uuid4().hex[:8]}",
            "reference": [str(self.folder / "full")],
            "lateness_ms": 800,
            "future_skew_ms": 500,
            "expected_delay_ms": 300,
            "idle_ms": 3_600_000,
            "evidence": None,
            "device": "cpu",
            "group_protocol": "classic",
        } | settings

    def _small_reference(self, model: str) -> str:
        folder = self.folder / model
        if not folder.exists():
            fit_reference([small_frame(model, 0, seed) for seed in range(20)], permutations=19).save(folder)
        return str(folder)

    def _send(self, prefix: str, models: Sequence[str], frames: int, *, span_ms: int) -> None:
        """Small frames in the order of their event times, `span_ms` in all, model after model."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 20, "partitioner": "murmur2_random"})
        for number in range(frames):
            model = models[number % len(models)]
            value = small_frame(model, 600_000_000 + number * span_ms // frames, number).encode()
            producer.produce(ACTIVATIONS.full_name(prefix), key=model, value=value)
            if len(producer) > 20_000:
                producer.flush()
        producer.flush()

    def _beat(self, prefix: str, models: Sequence[str]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"})
        for model in models:
            producer.produce(
                ACTIVATIONS.full_name(prefix), key=model, value=Heartbeat(model, int(time.time() * 1000)).encode()
            )
        producer.flush()


POOL: Final = np.random.default_rng(7).standard_normal((4_096, SMALL_D)).astype(np.float32)


def small_frame(model: str, time_ms: int, number: int) -> Frame:
    """16 x 64 float32, drawn from a pool: making them must not take longer than reading them."""
    rows = POOL[np.arange(number * SMALL_ROWS, (number + 1) * SMALL_ROWS) % len(POOL)]
    return Frame(model, {"hidden": rows}, event_time_ms=np.full(SMALL_ROWS, time_ms))


def in_turn(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each side once a round, in turning order."""
    names = list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(sides[name]())
    return found


def ratio(row: str, found: dict[str, list[float]], mine: str, other: str) -> Measured:
    value = statistics.median(a / b for a, b in zip(found[mine], found[other], strict=True))
    a, b = statistics.median(found[mine]), statistics.median(found[other])
    return Measured(row, value, f"{a:,.0f} against {b:,.0f} frames/s, medians of {len(found[mine])}")


class running:  # noqa: N801  # reads as what it does
    """A worker that does not outlive its block."""

    def __init__(self, settings: dict[str, Any], until: dict[str, float]) -> None:
        self._process = start(settings, until)

    def __enter__(self) -> "subprocess.Popen[str]":
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def start(settings: dict[str, Any], until: dict[str, float]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.stream_worker", json.dumps(settings), json.dumps(until)]
    return subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(worker: "subprocess.Popen[str]") -> dict[str, Any]:
    """What it saw, once it is done."""
    out, _ = worker.communicate(timeout=PATIENCE_S * 2)
    if worker.returncode != 0:
        raise RuntimeError(f"a worker ended with exit code {worker.returncode}; run it by hand to see why")
    seen: dict[str, Any] = json.loads(out.splitlines()[-1])
    return seen


if __name__ == "__main__":
    sys.exit(main())
