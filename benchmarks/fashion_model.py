"""The small network that the detection benchmark attacks, how it is trained, and its activations as frames."""

import uuid
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from benchmarks.fashion import CLASSES, Images
from numpy.typing import NDArray
from torch import Tensor, nn

from hydrophone.schemas.frame import Frame, concat
from hydrophone.streams.tap import ActivationTap

__all__ = ["LAYERS", "MODEL", "accuracy", "as_input", "frame_of", "network", "predict", "train"]

MODEL: Final = "fashion"
LAYERS: Final = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2", "logits")
DROPOUT: Final = 0.25
LEARNING_RATE: Final = 1e-3
"""Batch, rate and dropout as in Tuna, Catak & Eskil, arXiv 2012.06390."""
TRAIN_BATCH: Final = 64
SERVE_BATCH: Final = 500


def network(seed: int) -> nn.Sequential:
    """Four convolutions of 16, 32, 64 and 64 maps and dense layers of 256, 128 and 10; 0.90 million parameters.

    Tapped are the bare layers, as a user would name them. Behind their ReLUs weak noise is easier to see: the black
    background of these images is exactly 0.
    """
    torch.manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(1, 16, 3, padding=1),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        relu2=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv3=nn.Conv2d(32, 64, 3, padding=1),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(64, 64, 3, padding=1),
        relu4=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        dropout1=nn.Dropout(DROPOUT),
        flat=nn.Flatten(),
        fc1=nn.Linear(64 * 7 * 7, 256),
        relu5=nn.ReLU(),
        dropout2=nn.Dropout(DROPOUT),
        fc2=nn.Linear(256, 128),
        relu6=nn.ReLU(),
        dropout3=nn.Dropout(DROPOUT),
        logits=nn.Linear(128, CLASSES),
    )
    return nn.Sequential(layers)


def as_input(values: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`[n, 1, 28, 28]` in [0, 1]."""
    return (values[:, None].astype(np.float32) / 255.0).astype(np.float32)


def train(images: Images, *, seed: int, epochs: int) -> nn.Sequential:
    """Adam on shuffled batches; the same seed gives the same weights on the same machine. Returned in `eval` mode."""
    model = network(seed).train()
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = torch.from_numpy(as_input(images.values)), torch.from_numpy(images.labels.astype(np.int64))
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        for rows in _batches(torch.randperm(len(images), generator=generator), TRAIN_BATCH):
            optimiser.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(inputs[rows]), labels[rows]))
            optimiser.step()
    return model.eval()


def accuracy(model: nn.Module, images: Images) -> float:
    return float((predict(model, images.values) == images.labels).mean())


def predict(model: nn.Module, values: NDArray[np.uint8]) -> NDArray[np.int64]:
    with torch.inference_mode():
        parts = _batches(torch.from_numpy(as_input(values)), SERVE_BATCH)
        return np.concatenate([model(part).argmax(1).numpy() for part in parts])


class _Kept:
    """Keeps what a tap publishes."""

    model = MODEL

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def publish(self, frame: Frame) -> bool:
        self.frames.append(frame)
        return True

    def close(self, timeout_s: float = 10) -> int:  # noqa: ARG002  # the protocol's
        return 0


def frame_of(model: nn.Module, values: NDArray[np.uint8], *, name: str) -> Frame:
    """What a tap on the serving model would publish for these images, as one frame. `name` gives the frame's identity,
    so that a second run finds the same rows under the same names.
    """
    sink = _Kept()
    with ActivationTap(model, LAYERS, publisher=sink, output="logits") as tap, torch.inference_mode():
        for part in _batches(torch.from_numpy(as_input(values)), SERVE_BATCH):
            model(part)
    if tap.stats.errors:
        raise RuntimeError(f"the tap failed: {dict(tap.stats.errors)}")
    rows = concat(sink.frames)
    return Frame(
        MODEL,
        rows.layers,
        event_time_ms=np.array(0),
        frame_id=str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        output=rows.output,
        predicted=rows.predicted,
    )


def _batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
