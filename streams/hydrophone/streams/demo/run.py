"""The demo from start to end: broker, model, reference, processor, traffic, attack, alert. Told as it happens.

Nothing is staged: the model is trained here, the attack is computed against it, the broker speaks Kafka's protocol, and
the processor is the same program that production runs, in a process of its own.
"""

import copy
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hydrophone.detectors import Reference, fit_reference
from hydrophone.schemas.alert import Alert
from hydrophone.schemas.errors import ProcessorStopped
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.clock import now_ms
from hydrophone.streams.demo.model import LAYERS, Digits, accuracy, digits, new_model, pgd, train
from hydrophone.streams.follow import Follower
from hydrophone.streams.frame_files import frame_paths, read_frames
from hydrophone.streams.frame_writer import FrameWriter
from hydrophone.streams.kafka.embedded import EmbeddedBroker
from hydrophone.streams.publisher import Publisher
from hydrophone.streams.tap import ActivationTap
from hydrophone.streams.topics import ALERTS, DEFAULT_PREFIX, SCORES, TOPICS, with_partitions
from hydrophone.streams.windows import window_start

__all__ = ["MODEL", "Narrator", "Plan", "Story", "run_demo"]

MODEL: Final = "digits-cnn"
EPOCHS: Final = 25
EPSILON: Final = 0.2
"""Largest change of a pixel, of a range of 1."""

CLIENTS: Final = 12
PARTITIONS: Final = 4
LATENESS_MS: Final = 600
PATIENCE_S: Final = 60.0
STOP_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much happens. Windows are a few seconds long so that the whole takes about a minute."""

    window_ms: int = 3_500
    natural: int = 10
    attacked: int = 4
    after: int = 1
    batches: int = 12
    batch_rows: int = 16
    hostile_share: float = 0.15
    seed: int = 7

    @property
    def windows(self) -> int:
        return self.natural + self.attacked + self.after

    def is_attacked(self, window: int) -> bool:
        return self.natural <= window < self.natural + self.attacked


@dataclass(slots=True)
class Story:
    """What happened, for the telling and for whoever checks it."""

    accuracy: float = 0.0
    attacked_accuracy: float = 1.0
    hostile: set[str] = field(default_factory=set)
    scores: list[WindowScore] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)

    def hostile_among(self, alert: Alert) -> int:
        """How many of an alert's suspects were attacked in truth."""
        return sum(suspect.sample_id in self.hostile for suspect in alert.suspects)


class Narrator(Protocol):
    """Whoever tells the story: the terminal, or a test that stays silent."""

    def say(self, line: str) -> None: ...

    def tick(self, what: str, done: int, total: int) -> None: ...

    def score(self, score: WindowScore) -> None: ...

    def alert(self, alert: Alert, hostile: int) -> None: ...


def run_demo(folder: Path, plan: Plan, narrator: Narrator) -> Story:
    """Everything it starts it ends, on an error and on Ctrl-C too. Raises `ProcessorStopped` if the processor dies."""
    folder = folder.absolute()  # the processor runs in it, away from the settings of wherever this was called
    torch.manual_seed(plan.seed)
    torch.set_num_threads(1)  # the processor wants the other core
    data, model, story = digits(plan.seed), new_model(), Story()
    for epoch in train(model, data.train, epochs=EPOCHS, seed=plan.seed):
        narrator.tick("training a small CNN on handwritten digits", epoch + 1, EPOCHS)
    story.accuracy = accuracy(model, *data.traffic)
    narrator.say(f"trained a small CNN: {story.accuracy:.1%} right on digits it never saw")
    reference = _fit(model, data, folder, plan)
    sizes = reference.manifest.sizes
    narrator.say(f"fitted a reference on {sizes.fit + sizes.reference} natural digits")
    story.attacked_accuracy = accuracy(model, pgd(model, *data.traffic, epsilon=EPSILON), data.traffic[1])
    partitions = {topic.full_name(DEFAULT_PREFIX): topic.partitions for topic in with_partitions(TOPICS, PARTITIONS)}
    with EmbeddedBroker(partitions) as broker:
        kafka = {"bootstrap.servers": broker.bootstrap}
        with (
            Follower(kafka, SCORES.full_name(DEFAULT_PREFIX), WindowScore) as scores,
            Follower(kafka, ALERTS.full_name(DEFAULT_PREFIX), Alert) as alerts,
            _processor(broker.bootstrap, folder, plan) as processor,
        ):
            narrator.say(f"started an embedded broker at {broker.bootstrap} and `hydrophone process`")
            watch = _Watch(scores, alerts, processor, story, narrator)
            with Publisher(broker.bootstrap, model=MODEL, heartbeat_ms=250) as publisher:
                _send_traffic(model, data.traffic, publisher, plan, watch)
                watch.wait_for(plan.windows)
    return story


def _fit(model: nn.Module, data: Digits, folder: Path, plan: Plan) -> Reference:
    """What a user does: run validation images through the tapped model, fit on the frames."""
    with (
        FrameWriter(folder / "validation", model=MODEL) as writer,
        ActivationTap(model, LAYERS, publisher=writer, output="logits"),
        torch.no_grad(),
    ):
        for batch in torch.split(data.validation[0], 100):
            model(batch)
    reference = fit_reference(read_frames(frame_paths([folder / "validation"])), seed=plan.seed, device="cpu")
    reference.save(folder / "reference")
    return reference


@contextmanager
def _processor(bootstrap: str, folder: Path, plan: Plan) -> Iterator["subprocess.Popen[bytes]"]:
    """The real program, ended by the signal it drains on."""
    options = {
        "reference": folder / "reference",
        "bootstrap": bootstrap,
        "guarantee": "at-least-once",
        "window-ms": plan.window_ms,
        "lateness-ms": LATENESS_MS,
        "future-skew-ms": LATENESS_MS // 2,
        "expected-delay-ms": LATENESS_MS // 2,
        "idle-ms": 2 * plan.window_ms,
        "evidence": folder / "evidence",
        "device": "cpu",
    }
    command = [sys.executable, "-m", "hydrophone.streams.cli", "process"]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with (folder / "processor.log").open("wb") as log:
        own = {name: value for name, value in os.environ.items() if not name.upper().startswith("HYDROPHONE_")}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=own, cwd=folder)  # noqa: S603  # our program
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(slots=True)
class _Watch:
    """Takes in what the processor says while traffic goes on."""

    scores: Follower[WindowScore]
    alerts: Follower[Alert]
    processor: "subprocess.Popen[bytes]"
    story: Story
    narrator: Narrator

    def look(self, timeout_s: float = 0.0) -> None:
        if self.processor.poll() is not None:
            raise ProcessorStopped(f"the processor ended with exit code {self.processor.returncode}; see processor.log")
        for score in self.scores.poll(timeout_s):
            self.story.scores.append(score)
            self.narrator.score(score)
        for alert in self.alerts.poll(0):
            self.story.alerts.append(alert)
            self.narrator.alert(alert, self.story.hostile_among(alert))

    def wait_for(self, windows: int) -> None:
        """The last windows close when a heartbeat tells that time has passed them."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.story.scores) < windows and time.monotonic() < deadline:
            self.look(0.2)
        self.look(0.2)


def _send_traffic(
    model: nn.Module, part: tuple[Tensor, Tensor], publisher: Publisher, plan: Plan, watch: _Watch
) -> None:
    """Whole windows of requests at an even pace; in some of them, some requests are attacked."""
    rng = np.random.default_rng(plan.seed)
    attackers_copy = copy.deepcopy(model)  # an attacker's queries to a stolen copy do not pass our tap
    first = window_start(now_ms(), plan.window_ms) + plan.window_ms
    pause_ms = plan.window_ms / (plan.batches + 1)
    with ActivationTap(model, LAYERS, publisher=publisher, output="logits") as tap:
        for window in range(plan.windows):
            rows = rng.permutation(len(part[0]))[: plan.batches * plan.batch_rows].reshape(plan.batches, -1)
            share = plan.hostile_share if plan.is_attacked(window) else 0.0
            for batch, chosen in enumerate(rows):
                images, hostile = _requests(attackers_copy, part, chosen, share, rng)
                names = [f"w{window:02d}-{batch:02d}-{place}" for place in range(len(chosen))]
                clients = [f"client-{'evil' if bad else rng.integers(CLIENTS)}" for bad in hostile]
                watch.story.hostile.update(name for name, bad in zip(names, hostile, strict=True) if bad)
                due_ms = first + window * plan.window_ms + (batch + 0.5) * pause_ms
                while (left_ms := due_ms - now_ms()) > 0:
                    watch.look(min(left_ms / 1000, 0.1))
                with tap.request(sample_ids=names, client_ids=clients), torch.no_grad():
                    model(images)
            watch.narrator.tick("sending traffic", window + 1, plan.windows)


def _requests(
    model: nn.Module, part: tuple[Tensor, Tensor], rows: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[Tensor, np.ndarray]:
    """A batch of images, and which of them are attacked."""
    images, labels = part[0][rows], part[1][rows]
    hostile = rng.random(len(rows)) < share
    if hostile.any():
        mask = torch.from_numpy(hostile)
        images[mask] = pgd(model, images[mask], labels[mask], epsilon=EPSILON)
    return images, hostile
