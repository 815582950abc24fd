"""`hydrophone` as a process of its own, a small reference for it, and what it wrote. Nothing here asserts a promise."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

import numpy as np
from confluent_kafka import KafkaException
from tests.support.broker import Record, read_all
from tests.support.forked import Forked, Running
from tests.support.frames import frame_id

from hydrophone.detectors import Reference, fit_reference
from hydrophone.detectors.samples import fit_samples
from hydrophone.schemas.errors import BrokerUnavailable
from hydrophone.schemas.event import Event
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.headers import from_record
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.kafka.admin import create_topics
from hydrophone.streams.settings import PUBLIC_SAMPLING_KEY
from hydrophone.streams.topics import SCORES, Topic

__all__ = [
    "SAMPLING_KEY",
    "WIDTH",
    "Processor",
    "await_until",
    "cli",
    "events_of",
    "frame_at",
    "judging_reference",
    "load",
    "make_topics",
    "scores_of",
    "small_reference",
    "start",
]

WIDTH: Final = 4
SAMPLING_KEY: Final = PUBLIC_SAMPLING_KEY
"""What a processor uses that was given none."""

PATIENCE_S: Final = 180.0

E = TypeVar("E", bound=Event)


class Processor:
    """A running `hydrophone process`. Use it as a context manager: it does not outlive the block."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        name: str,
        *,
        variables: Mapping[str, str] | None = None,
        failpoint: str = "",
        is_forked: bool = False,
    ) -> None:
        self.log_path = folder / f"{name}.log"
        self.log_path.touch()
        environ = environment() | dict(variables or {}) | {"HYDROPHONE_FAILPOINT": failpoint}
        launch = Forked if is_forked else _fresh
        self._process: Running = launch(arguments, folder, environ, self.log_path)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """At once and without a word: SIGKILL."""
        self._process.kill()
        self._process.wait(10)

    def drain(self, timeout_s: float = 30) -> int:
        """SIGTERM, and the exit code."""
        self._process.terminate()
        return self._process.wait(timeout_s)

    def wait(self, timeout_s: float = 60) -> int:
        return self._process.wait(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()


def start(
    bootstrap: str,
    prefix: str,
    folder: Path,
    *,
    name: str = "worker",
    variables: Mapping[str, str] | None = None,
    failpoint: str = "",
    is_forked: bool = True,
    **options: object,
) -> Processor:
    """`hydrophone process` with small windows; options as on the command line, underscores for dashes.

    A sequence repeats its option. Idle partitions stay open unless told otherwise: event times here are made up.
    """
    settings: dict[str, object] = {
        "bootstrap": bootstrap,
        "prefix": prefix,
        "group": f"{prefix}group",
        "window_ms": 1_000,
        "lateness_ms": 800,
        "future_skew_ms": 500,
        "expected_delay_ms": 300,
        "idle_ms": 3_600_000,
        "device": "cpu",
        "evidence": folder / "evidence",
    } | options
    arguments = ["process"]
    for option, value in settings.items():
        values = value if isinstance(value, list | tuple) else [value]
        arguments += [text for one in values for text in (f"--{option.replace('_', '-')}", str(one))]
    return Processor(arguments, folder, name, variables=variables, failpoint=failpoint, is_forked=is_forked)


def cli(
    *arguments: object, folder: Path, timeout_s: float = 60, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """One invocation of `hydrophone`, to its end, in a process of its own."""
    texts = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as kept:
        out, err = Path(kept, "out"), Path(kept, "err")
        process = Forked(texts, folder, environment() | variables, out, err)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(["hydrophone", *texts], code, out.read_text(), err.read_text())


def _fresh(
    arguments: Sequence[str], folder: Path, variables: Mapping[str, str], log: Path
) -> "subprocess.Popen[bytes]":
    """As a shell would start it."""
    with log.open("ab") as to:
        command = [sys.executable, "-m", "hydrophone.streams.cli", *arguments]
        return subprocess.Popen(command, cwd=folder, env=variables, stdout=to, stderr=to)


def environment() -> dict[str, str]:
    """No setting of whoever runs the tests, and one thread each: several processes share the machine."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HYDROPHONE_")}
    return clean | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "200"}


def small_reference(
    folder: Path, model: str, *, layers: Sequence[str] = ("fc",), seed: int = 0, rows: int = 60
) -> Path:
    """A reference of `rows` rows and 19 permutations on standard normal layers of `WIDTH`; its folder."""
    rng = np.random.default_rng(seed)
    frame = Frame(
        model,
        {name: rng.standard_normal((rows * 3 // 2, WIDTH)).astype(np.float32) for name in layers},
        event_time_ms=np.array(0),
        frame_id=frame_id(f"reference of {model}"),
    )
    where = folder / f"reference-{model}-{seed}"
    fit_reference([frame], permutations=19, seed=seed, device="cpu").save(where)
    return where


def judging_reference(folder: Path, model: str, *, rows: int = 1_200, seed: int = 0) -> Path:
    """As `small_reference`, with detectors of single rows; its frames bring `fc` alone."""
    small = load(small_reference(folder, model, seed=seed, rows=400))
    rng = np.random.default_rng([seed, 1])
    values = rng.standard_normal((rows, WIDTH)).astype(np.float32)
    natural = Frame(model, {"fc": values}, event_time_ms=np.array(0), frame_id=frame_id(f"natural {model}"))
    where = folder / f"judging-{model}-{seed}"
    small.with_samples(fit_samples([natural], seed=seed, device="cpu")).save(where)
    return where


def frame_at(
    model: str,
    times: Sequence[int],
    name: object,
    *,
    shift: float = 0.0,
    layers: Mapping[str, int] | None = None,
    client: str | None = None,
) -> Frame:
    """Standard normal rows at these event times; `name` decides the id and the values."""
    rng = np.random.default_rng([len(model), *str(name).encode()])
    values = {
        layer: (rng.standard_normal((len(times), width)) + shift).astype(np.float32)
        for layer, width in (layers or {"fc": WIDTH}).items()
    }
    samples = [f"{name}/{row}" for row in range(len(times))]
    return Frame(
        model,
        values,
        event_time_ms=np.array(times),
        frame_id=frame_id(name),
        sample_ids=samples,
        client_ids=None if client is None else [client] * len(times),
    )


def make_topics(bootstrap: str, prefix: str, *, partitions: int = 1) -> None:
    """All of the project's topics, with its own settings. A machine that stands still for a while is no failure."""
    try:
        create_topics({"bootstrap.servers": bootstrap}, prefix=prefix, partitions=partitions)
    except BrokerUnavailable:
        create_topics({"bootstrap.servers": bootstrap}, prefix=prefix, partitions=partitions)


def events_of(bootstrap: str, prefix: str, topic: Topic, kind: type[E]) -> list[E]:
    """Every committed event of a topic."""
    return [
        from_record(kind, record.value or b"", _headers(record))
        for record in read_all(bootstrap, topic.full_name(prefix))
    ]


def scores_of(bootstrap: str, prefix: str) -> list[WindowScore]:
    return events_of(bootstrap, prefix, SCORES, WindowScore)


def load(folder: Path) -> Reference:
    return Reference.load(folder, device="cpu")


def await_until(condition: Callable[[], bool], what: str, *, timeout_s: float = PATIENCE_S) -> None:
    """Ask four times a second; a broker that cannot say yet is asked again."""
    deadline = time.monotonic() + timeout_s
    while not _holds(condition):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.25)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except KafkaException:
        return False


def _headers(record: Record) -> list[tuple[str, bytes | None]]:
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in record.headers.items()]
