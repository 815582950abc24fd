"""One scenario's world: topics, models with references, traffic, processors, and the reckoning at its end."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from confluent_kafka import KafkaError, Message, Producer
from tests.support.batch import BatchRules
from tests.support.broker import read_all
from tests.support.processor import (
    SAMPLING_KEY,
    WIDTH,
    Processor,
    await_until,
    events_of,
    frame_at,
    make_topics,
    scores_of,
    small_reference,
    start,
)
from tests.support.reckoning import Reckoning, expected_windows, late_rows, reckon

from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.operations import OperationalEvent
from hydrophone.streams.assembly import build_runtime
from hydrophone.streams.clock import now_ms
from hydrophone.streams.settings import Settings
from hydrophone.streams.topics import ACTIVATIONS, EVENTS, LATE

__all__ = ["QUICK_SESSION", "TIMES", "InProcess", "Stage"]

K: Final = 24
TIMES: Final[Mapping[str, int]] = {
    "window_ms": 1_000,
    "lateness_ms": 800,
    "future_skew_ms": 500,
    "expected_delay_ms": 300,
    "idle_ms": 3_600_000,
}

QUICK_SESSION: Final[Mapping[str, str]] = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"}
"""A member that is gone is missed soon; the client's own heartbeats are three seconds apart."""


class InProcess:
    """The processor as `hydrophone process` builds it, on a thread of this process: quick to start, never killed."""

    def __init__(self, settings: Settings, batch: int) -> None:
        self.runtime = build_runtime(settings)
        self.runtime._intake._batch = batch
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.runtime.run()
        except BaseException as error:  # handed to whoever drains
            logging.getLogger("hydrophone").exception("the processor ended")
            self.error = error

    def wait(self, timeout_s: float = 60) -> BaseException | None:
        """What ended it by itself."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"the processor was still at work after {timeout_s:g} s"
        return self.error

    def drain(self, timeout_s: float = 30) -> None:
        self.runtime.stop()
        error = self.wait(timeout_s)
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.runtime.stop()
        self._thread.join(30)


@dataclass(frozen=True, slots=True)
class Stage:
    """`first_ms` is where made-up event times begin: ten minutes ago, at the edge of a window."""

    bootstrap: str
    prefix: str
    folder: Path
    references: Mapping[str, Path]
    rules: BatchRules
    first_ms: int

    @classmethod
    def of(cls, bootstrap: str, prefix: str, folder: Path, models: Sequence[str], *, partitions: int = 1) -> "Stage":
        """With all topics made, and a reference for each model."""
        make_topics(bootstrap, prefix, partitions=partitions)
        references = {model: small_reference(folder, model, seed=i) for i, model in enumerate(models)}
        sizes = {model: {"fc": WIDTH} for model in models}
        rules = BatchRules(TIMES["window_ms"], TIMES["lateness_ms"], TIMES["future_skew_ms"], K, SAMPLING_KEY, sizes)
        return cls(bootstrap, prefix, folder, references, rules, now_ms() // 1_000 * 1_000 - 600_000)

    @property
    def topic(self) -> str:
        return ACTIVATIONS.full_name(self.prefix)

    @property
    def models(self) -> list[str]:
        return list(self.references)

    # -- traffic ------------------------------------------------------------------------------------------------------

    def frames(
        self, window: int, *, parts: int = 3, rows: int = 10, models: Iterable[str] | None = None
    ) -> list[Frame]:
        """One window's clean frames of each model."""
        begin = self.first_ms + window * 1_000
        return [
            frame_at(model, [begin + part * 300] * rows, f"{model}/{window}/{part}")
            for part in range(parts)
            for model in models or self.references
        ]

    def send(self, *frames: Frame | Heartbeat | tuple[str, bytes], **properties: object) -> None:
        """In this order, each on its model's partition; returns when all are acknowledged."""
        failed: list[KafkaError] = []

        def report(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random", "linger.ms": 5, **properties}
        )
        for frame in frames:
            key, value = frame if isinstance(frame, tuple) else (frame.model, frame.encode())
            producer.produce(self.topic, value, key, on_delivery=report)
        assert producer.flush(60) == 0, "not everything was delivered within a minute"
        assert not failed, failed

    def send_windows(self, numbers: Iterable[int]) -> None:
        self.send(*(frame for number in numbers for frame in self.frames(number)))

    def send_until(self, condition: Callable[[], bool], what: str, *, begin: int = 0, timeout_s: float = 60) -> int:
        """One window after another until something has happened; gives the number of the next."""
        deadline = time.monotonic() + timeout_s
        number = begin
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
            self.send_windows([number])
            number += 1
            time.sleep(0.2)
        return number

    def close_windows(self) -> None:
        """A heartbeat of each model at the present: whatever was made up is past."""
        self.send(*(Heartbeat(model, now_ms()) for model in self.references))

    # -- processors ---------------------------------------------------------------------------------------------------

    def process(self, name: str = "worker", *, failpoint: str = "", **options: object) -> Processor:
        """In a process of its own. `kafka` is a mapping."""
        kafka = options.pop("kafka", {})
        assert isinstance(kafka, Mapping), "`kafka` maps client properties to values"
        options["kafka"] = [f"{name}={value}" for name, value in kafka.items()]
        chosen: dict[str, Any] = {"reference": list(self.references.values()), "k": K} | options
        return start(self.bootstrap, self.prefix, self.folder, name=name, failpoint=failpoint, **chosen)

    def in_process(self, *, batch: int = 500, **options: object) -> InProcess:
        """On a thread of this one. `batch`: records at most between two commits."""
        chosen: dict[str, object] = {
            "bootstrap": self.bootstrap,
            "topic_prefix": self.prefix,
            "group": f"{self.prefix}group",
            "reference": tuple(self.references.values()),
            "k": K,
            "device": "cpu",
            "evidence": str(self.folder / "evidence"),
            **TIMES,
        }
        return InProcess(Settings(**chosen | options), batch)  # type: ignore[arg-type]

    def pause_for_references(self) -> None:
        """Longer than a processor takes to look at `references` again."""
        time.sleep(1.5)

    # -- outcome ------------------------------------------------------------------------------------------------------

    def scored(self) -> set[tuple[str, int]]:
        return {(score.model, score.window.start_ms) for score in scores_of(self.bootstrap, self.prefix)}

    def events(self) -> list[OperationalEvent]:
        return events_of(self.bootstrap, self.prefix, EVENTS, OperationalEvent)

    def await_scores(self, *, by_clock: bool = False, timeout_s: float = 60) -> None:
        """Until every window of what is in the log now has been scored."""
        log = read_all(self.bootstrap, self.topic)
        fixed = None if by_clock else expected_windows(log, self.rules, None)

        def is_done() -> bool:
            scored = self.scored()
            if fixed is not None:
                return fixed <= scored
            late = dict(late_rows(read_all(self.bootstrap, LATE.full_name(self.prefix))))
            return expected_windows(log, self.rules, late) <= scored

        await_until(is_done, "every window was scored", timeout_s=timeout_s)

    def await_scores_of(self, windows: int) -> None:
        await_until(lambda: len(self.scored()) >= windows, f"{windows} windows were scored")

    def reckon(self, *, by_clock: bool = False) -> Reckoning:
        return reckon(self.bootstrap, self.prefix, self.rules, self.references, by_clock=by_clock)

    def assert_every_window_once(self, *, by_clock: bool = False, windows: int = 1) -> Reckoning:
        """I0. `windows`: how many there must be at least, so that nothing passes for want of traffic."""
        found = self.reckon(by_clock=by_clock)
        assert not found.faults, found.faults
        assert len(found.batch.windows) >= windows
        return found
