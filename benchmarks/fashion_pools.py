"""What windows are made of: the activations of clean and attacked images for one trained model, kept between runs.

Weights and activations are kept under `.benchmarks/` by a hash of the data, of the code that makes them and of the
seed; a change of any makes them anew. Which windows are drawn from them lives in `detection.py`.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks import fashion, fashion_attacks, fashion_model
from benchmarks.fashion import CACHE, SHA256, Images, Splits
from benchmarks.fashion_attacks import ATTACKS, AttackRecord, attack, gaussian_noise
from benchmarks.fashion_model import accuracy, frame_of, network, predict, train
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from hydrophone.schemas.frame import Frame

__all__ = ["FULL", "NOISE", "QUICK", "Pools", "Profile", "load_pools", "predicted"]

NATURAL: Final = ("train", "fit", "calibrate", "clean")
NOISE: Final[Mapping[str, float]] = {"noise.03": 0.03, "noise.12": 0.12}


@dataclass(frozen=True, slots=True)
class Profile:
    epochs: int
    sources: int
    attacks: tuple[str, ...]


FULL: Final = Profile(epochs=5, sources=1_000, attacks=tuple(ATTACKS))
QUICK: Final = Profile(epochs=1, sources=200, attacks=("FGSM.12", "PGD.12"))


@dataclass(frozen=True, slots=True)
class Pools:
    """Frames of disjoint images: `train` the model saw, the others it did not. `sources` are the unattacked images of
    every pool in `attacks`, in the same order; `noise` are the controls made of them.
    """

    seed: int
    accuracy: float
    train: Frame
    fit: Frame
    calibrate: Frame
    clean: Frame
    sources: Frame
    attacks: Mapping[str, Frame]
    noise: Mapping[str, Frame]
    records: Sequence[AttackRecord]

    def fooled(self, attack: str) -> NDArray[np.bool_]:
        """Which sources are classified otherwise once attacked."""
        changed: NDArray[np.bool_] = predicted(self.attacks[attack]) != predicted(self.sources)
        return changed


def predicted(frame: Frame) -> NDArray[np.int64]:
    """The predicted classes of a pool, which always has them: the tap saw the output."""
    classes = frame.classes()
    assert classes is not None, "a pool is made by a tap that sees the output"
    return classes


def load_pools(seed: int, profile: Profile) -> Pools:
    """From the cache, or made: minutes for the full profile."""
    kept = _Kept(seed, profile)
    return Pools(
        seed,
        kept.accuracy(),
        **{name: kept.frame(name) for name in NATURAL},
        sources=kept.frame("sources"),
        attacks={name: kept.frame(name) for name in profile.attacks},
        noise={name: kept.frame(name) for name in NOISE},
        records=[kept.record(name) for name in profile.attacks],
    )


class _Kept:
    """One model's folder in the cache; what is missing there is made when it is asked for."""

    def __init__(self, seed: int, profile: Profile) -> None:
        self.seed, self.profile = seed, profile
        self.folder = CACHE / "fashion" / _digest(seed, profile)
        self.folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def splits(self) -> Splits:
        return fashion.load()

    @cached_property
    def model(self) -> nn.Sequential:
        path = self.folder / "weights.safetensors"
        if not path.exists():
            self._say("training")
            save_file(train(self.splits.train, seed=self.seed, epochs=self.profile.epochs).state_dict(), path)
        model = network(self.seed)
        model.load_state_dict(load_file(path))
        return model.eval()

    @cached_property
    def sources(self) -> Images:
        """The first correctly classified candidates: an attack on a mistake proves nothing."""
        candidates = self.splits.candidates
        correct = np.flatnonzero(predict(self.model, candidates.values) == candidates.labels)
        return candidates.take(correct[: self.profile.sources])

    def accuracy(self) -> float:
        path = self.folder / "accuracy.json"
        if not path.exists():
            path.write_text(json.dumps(accuracy(self.model, self.splits.clean)))
        return float(json.loads(path.read_text()))

    def record(self, name: str) -> AttackRecord:
        return AttackRecord(**json.loads((self.folder / f"{name}.json").read_text()))

    def frame(self, name: str) -> Frame:
        path = self.folder / f"{name}.frame"
        if not path.exists():
            frame = frame_of(self.model, self._values(name), name=f"{self.folder.name}/{name}")
            path.write_bytes(frame.encode())
        return Frame.decode(path.read_bytes())

    def _values(self, name: str) -> NDArray[np.uint8]:
        if name in NATURAL:
            images: Images = getattr(self.splits, name)
            return images.values
        if name == "sources":
            return self.sources.values
        if name in NOISE:
            return gaussian_noise(self.sources, deviation=NOISE[name], seed=self.seed)
        self._say(f"attacking by {name}")
        attacked, record = attack(name, self.model, self.sources, seed=self.seed)
        (self.folder / f"{name}.json").write_text(json.dumps(asdict(record)))
        return attacked

    def _say(self, what: str) -> None:
        print(f"model {self.seed}: {what}", file=sys.stderr, flush=True)


def _digest(seed: int, profile: Profile) -> str:
    """Of everything that decides what is made: data, code, libraries, seed and profile."""
    digest = hashlib.sha256(json.dumps([seed, asdict(profile), sorted(SHA256.items())]).encode())
    for module in (fashion, fashion_model, fashion_attacks):
        digest.update(Path(str(module.__file__)).read_bytes())
    for package in ("torch", "numpy", "adversarial-robustness-toolbox"):
        digest.update(metadata.version(package).encode())
    return digest.hexdigest()[:16]
