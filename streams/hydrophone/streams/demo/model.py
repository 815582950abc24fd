"""The model that is attacked, and the attack. A small CNN on scikit-learn's 8×8 digits; PGD within an L∞ ball.

Source of the attack: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", arXiv 1706.06083,
equation for PGD in section 2.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LAYERS", "Digits", "accuracy", "digits", "new_model", "pgd", "train"]

LAYERS: Final = ("relu[123]",)
PIXEL_MAX: Final = 16.0


@dataclass(frozen=True)
class Digits:
    """Disjoint parts of the 1,797 digits, shuffled: file order is not exchangeable. Images `[n, 1, 8, 8]` in [0, 1]."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    traffic: tuple[Tensor, Tensor]


def digits(seed: int) -> Digits:
    raw = load_digits()
    order = np.random.default_rng(seed).permutation(len(raw.images))
    images = torch.from_numpy((raw.images[order] / PIXEL_MAX).astype(np.float32))[:, None]
    labels = torch.from_numpy(raw.target[order].astype(np.int64))
    parts = [(images[a:b], labels[a:b]) for a, b in ((0, 600), (600, 1300), (1300, len(order)))]
    return Digits(*parts)


def new_model() -> nn.Sequential:
    """26,000 parameters; the names are what the tap's patterns match."""
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(1, 16, 3, padding=1))
    model.add_module("relu1", nn.ReLU())
    model.add_module("conv2", nn.Conv2d(16, 32, 3, padding=1))
    model.add_module("relu2", nn.ReLU())
    model.add_module("pool", nn.MaxPool2d(2))
    model.add_module("flatten", nn.Flatten())
    model.add_module("hidden", nn.Linear(512, 64))
    model.add_module("relu3", nn.ReLU())
    model.add_module("logits", nn.Linear(64, 10))
    return model


def train(model: nn.Module, part: tuple[Tensor, Tensor], *, epochs: int, seed: int) -> Iterator[int]:
    """Yields after each epoch; leaves the model in evaluation mode."""
    images, labels = part
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for epoch in range(epochs):
        for batch in torch.split(torch.randperm(len(images), generator=generator), 50):
            optimiser.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        yield epoch
    model.eval()


def pgd(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, steps: int = 20) -> Tensor:
    """Images within `epsilon` of the given ones (per pixel, of a range of 1) that raise the model's loss."""
    attacked = images.clone()
    for _ in range(steps):
        attacked.requires_grad_()
        loss = F.cross_entropy(model(attacked), labels)
        (gradient,) = torch.autograd.grad(loss, attacked)
        moved = attacked.detach() + 2.5 * epsilon / steps * gradient.sign()
        attacked = torch.minimum(torch.maximum(moved, images - epsilon), images + epsilon).clamp(0, 1)
    return attacked.detach()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images the model gets right."""
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())
