"""What the per-sample benchmark is measured on: one trained model's frames with MC-dropout measures, kept between runs.

The models are those of `fashion_pools.py`; its frames carry no MC-dropout measures and its attacked images are not
kept, so the images are made here again, with three attacks more, and images that are no clothes at all. What is
measured on them lives in `samples.py`.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from art.attacks.evasion import BasicIterativeMethod, DeepFool, FastGradientMethod
from art.estimators.classification import PyTorchClassifier
from benchmarks import fashion_pools
from benchmarks.fashion import CACHE, CLASSES, SIDE, Images
from benchmarks.fashion_attacks import (
    DEEPFOOL_CANDIDATES,
    DEEPFOOL_STEPS,
    OVERSHOOT,
    attack,
    gaussian_noise,
)
from benchmarks.fashion_model import as_input, frame_of
from benchmarks.fashion_pools import FULL, NOISE, Profile
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn

from hydrophone.schemas.frame import Frame

__all__ = ["LARGE", "SMALL", "SamplePools", "load_sample_pools"]

PASSES: Final = 50
DROPOUT: Final = 0.5
BATCH: Final = 100
STRANGERS: Final = 1_000
"""Images of each kind that is no clothes; digits are as many as there are."""

SMALL: Final = ("FGSM.03", "BIM.03", "PGD.03", "FGM.40", "L2PGD.40", "DeepFool")
LARGE: Final = ("FGSM.12", "BIM.12", "PGD.12", "FGM1.61", "L2PGD1.61", "DeepFool")
"""The six attacks of the document on attribution, at two strengths; DeepFool stops by itself."""

MORE: Final[Mapping[str, Callable[[PyTorchClassifier], Any]]] = {
    "BIM.03": lambda classifier: BasicIterativeMethod(
        classifier, eps=0.03, eps_step=0.006, max_iter=10, batch_size=250, verbose=False
    ),
    "FGM.40": lambda classifier: FastGradientMethod(classifier, norm=2, eps=0.40, batch_size=250),
    "FGM1.61": lambda classifier: FastGradientMethod(classifier, norm=2, eps=1.61, batch_size=250),
    # In small batches: each goes on until its last image is fooled, and tries the candidates of all its images.
    "DeepFool": lambda classifier: DeepFool(
        classifier,
        max_iter=DEEPFOOL_STEPS,
        epsilon=OVERSHOOT,
        nb_grads=DEEPFOOL_CANDIDATES,
        batch_size=16,
        verbose=False,
    ),
}


@dataclass(frozen=True, slots=True)
class SamplePools:
    """Frames of disjoint images: the model saw none of them. `sources` are the unattacked images of every frame in
    `attacks` and `noise`, in the same order; `strangers` are no clothes, or none that a camera would see.
    """

    seed: int
    accuracy: float
    fit: Frame
    calibrate: Frame
    clean: Frame
    sources: Frame
    attacks: Mapping[str, Frame]
    noise: Mapping[str, Frame]
    strangers: Mapping[str, Frame]

    def fooled(self, attack: str) -> NDArray[np.bool_]:
        """Which sources are classified otherwise once attacked."""
        return np.asarray(fashion_pools.predicted(self.attacks[attack]) != fashion_pools.predicted(self.sources))


def load_sample_pools(seed: int, profile: Profile = FULL, attacks: Sequence[str] = (*SMALL, *LARGE)) -> SamplePools:
    """From the cache, or made: a quarter of an hour for a full profile."""
    kept = _Kept(seed, profile)
    return SamplePools(
        seed,
        kept.base.accuracy(),
        **{name: kept.frame(name) for name in ("fit", "calibrate", "clean", "sources")},
        attacks={name: kept.frame(name) for name in dict.fromkeys(attacks)},
        noise={name: kept.frame(name) for name in NOISE},
        strangers={name: kept.frame(name) for name in STRANGE},
    )


class _Kept:
    """One model's folder in the cache; what is missing there is made when it is asked for."""

    def __init__(self, seed: int, profile: Profile) -> None:
        self.seed = seed
        self.base = fashion_pools._Kept(seed, profile)  # noqa: SLF001  # the same models
        digest = hashlib.sha256(self.base.folder.name.encode() + Path(__file__).read_bytes()).hexdigest()
        self.folder = CACHE / "samples" / digest[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def model(self) -> nn.Sequential:
        return self.base.model

    def frame(self, name: str) -> Frame:
        path = self.folder / f"{name}.frame"
        if not path.exists():
            print(f"model {self.seed}: {name}", file=sys.stderr, flush=True)
            values = self._values(name)
            frame = frame_of(self.model, values, name=f"{self.folder.name}/{name}")
            measures = mc_dropout(self.model, values, seed=self.seed)
            part = path.with_suffix(".part")
            part.write_bytes(replace(frame, uncertainty=measures).encode())
            part.rename(path)
        return Frame.decode(path.read_bytes())

    def _values(self, name: str) -> NDArray[np.uint8]:
        if name in ("fit", "calibrate", "clean"):
            images: Images = getattr(self.base.splits, name)
            return images.values
        if name == "sources":
            return self.base.sources.values
        if name in NOISE:
            return gaussian_noise(self.base.sources, deviation=NOISE[name], seed=self.seed)
        if name in STRANGE:
            return STRANGE[name](self.base.splits.clean.values[:STRANGERS])
        return self._attacked(name)

    def _attacked(self, name: str) -> NDArray[np.uint8]:
        path = self.folder / f"{name}.images"
        if not path.exists():
            made = _attack(name, self.model, self.base.sources, seed=self.seed)
            part = path.with_suffix(".part")
            save_file({"images": made}, part)
            part.rename(path)
        return np.asarray(load_file(path)["images"], np.uint8)


def _attack(name: str, model: nn.Module, sources: Images, *, seed: int) -> NDArray[np.uint8]:
    if name not in MORE:
        return attack(name, model, sources, seed=seed)[0]
    torch.manual_seed(seed)
    classifier = PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, SIDE, SIDE),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    found = MORE[name](classifier).generate(as_input(sources.values), y=sources.labels.astype(np.int64))
    model.eval()
    rounded: NDArray[np.uint8] = np.clip(np.rint(found[:, 0] * 255.0), 0, 255).astype(np.uint8)
    return rounded


def mc_dropout(model: nn.Sequential, values: NDArray[np.uint8], *, seed: int) -> dict[str, NDArray[np.float32]]:
    """The four measures of 50 passes with every dropout at p = .5, as in Tuna, Catak & Eskil (arXiv 2012.06390).

    What lies before the first dropout is the same in every pass and runs once.
    """
    first = next(place for place, layer in enumerate(model) if isinstance(layer, nn.Dropout))
    torch.manual_seed(seed)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(values), BATCH):
            known = model[:first](torch.from_numpy(as_input(values[start : start + BATCH])))
            passes = known.expand(PASSES, *known.shape).flatten(0, 1)
            for layer in model[first:]:
                passes = nn.functional.dropout(passes, DROPOUT) if isinstance(layer, nn.Dropout) else layer(passes)
            parts.append(measures(passes.softmax(1).view(PASSES, len(known), -1).numpy()))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def measures(passes: NDArray[np.floating]) -> dict[str, NDArray[np.float32]]:
    """Of class probabilities `[T, m, C]`: kept apart from the library, whose own are tested against these."""
    P = passes.astype(np.float64)
    mean = P.mean(0)
    entropy = -(mean * np.log(np.clip(mean, 1e-30, None))).sum(1)
    expected = -(P * np.log(np.clip(P, 1e-30, None))).sum(2).mean(0)
    found = {
        "variance": P.var(0).mean(1),
        "entropy": entropy,
        "mutual_information": np.clip(entropy - expected, 0.0, None),
        "confidence": mean.max(1),
    }
    return {name: value.astype(np.float32) for name, value in found.items()}


# Images that are no clothes


def _digits(_: NDArray[np.uint8]) -> NDArray[np.uint8]:
    small = torch.from_numpy(load_digits().images.astype(np.float32) / 16.0)[:, None]
    large = nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear")[:, 0]
    return np.rint(large.clamp(0, 1).numpy() * 255.0).astype(np.uint8)


def _inverted(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(255 - images, np.uint8)


def _rotated(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(images, axes=(1, 2)))


def _uniform(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)


def _shuffled(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each image's pixels in another order."""
    return np.random.default_rng(1).permuted(images.reshape(len(images), -1), axis=1).reshape(images.shape)


STRANGE: Final[Mapping[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]] = {
    "digits": _digits,
    "inverted": _inverted,
    "rotated": _rotated,
    "uniform-noise": _uniform,
    "pixel-shuffle": _shuffled,
}


def _main(seeds: Iterator[int]) -> None:
    for seed in seeds:
        load_sample_pools(seed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _main(int(seed) for seed in sys.argv[1:])
