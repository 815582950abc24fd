"""Fashion-MNIST for the detection benchmark: finds or fetches the four files, and splits them. No model lives here.

Images and labels by Zalando Research (Xiao, Rasul & Vollgraf, arXiv 1708.07747), MIT licence.
"""

import gzip
import hashlib
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.harness import HERE
from numpy.typing import NDArray

__all__ = ["CACHE", "CLASSES", "SHA256", "Images", "Rows", "Splits", "find_files", "load", "split"]

CLASSES: Final = 10
CACHE: Final = HERE.parent / ".benchmarks"
"""Everything a benchmark may make again: downloads, weights, activations. Git ignores it."""
FOLDER_VARIABLE: Final = "HYDROPHONE_FASHION_MNIST"
NEIGHBOUR: Final = HERE.parent.parent / "shared" / "data" / "fashion-mnist"
ADDRESS: Final = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/"

SHA256: Final[Mapping[str, str]] = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
IMAGE_HEADER: Final = 16
LABEL_HEADER: Final = 8
SIDE: Final = 28

TRAIN_ROWS: Final = 60_000
TEST_ROWS: Final = 10_000
SPLIT_SEED: Final = 0
"""One shuffle for all model seeds: they differ in the model, not in the data."""


@dataclass(frozen=True, slots=True)
class Images:
    """`values` are uint8 `[n, 28, 28]`."""

    values: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.integer[Any]]) -> "Images":
        return Images(self.values[rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class Rows:
    """Which row of which file each split holds: the first three of the train file, the others of the test file.

    Files are shuffled first: the order of a well-known file is not exchangeable.
    """

    train: NDArray[np.intp]
    fit: NDArray[np.intp]
    calibrate: NDArray[np.intp]
    clean: NDArray[np.intp]
    candidates: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Splits:
    """`candidates` are what attack sources are chosen from: a model's correctly classified ones."""

    train: Images
    fit: Images
    calibrate: Images
    clean: Images
    candidates: Images


def split(seed: int = SPLIT_SEED, *, train_rows: int = TRAIN_ROWS, test_rows: int = TEST_ROWS) -> Rows:
    """50,000 to train, 5,000 to fit, 5,000 to calibrate; 5,000 of clean traffic, 5,000 candidates (or their shares)."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed])))
    train, test = generator.permutation(train_rows), generator.permutation(test_rows)
    twelfth, half = train_rows // 12, test_rows // 2
    return Rows(
        train=train[2 * twelfth :],
        fit=train[:twelfth],
        calibrate=train[twelfth : 2 * twelfth],
        clean=test[:half],
        candidates=test[half:],
    )


def load(seed: int = SPLIT_SEED) -> Splits:
    files, rows = find_files(), split(seed)
    train = _images(files, "train")
    test = _images(files, "t10k")
    return Splits(
        train.take(rows.train),
        train.take(rows.fit),
        train.take(rows.calibrate),
        test.take(rows.clean),
        test.take(rows.candidates),
    )


def find_files() -> dict[str, Path]:
    """The four files, each of the expected sha256: from the folder named by the environment variable
    `HYDROPHONE_FASHION_MNIST`, else from beside the repository, else downloaded once.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named is not None:
        return {name: _checked(Path(named) / name) for name in SHA256}
    if all((NEIGHBOUR / name).exists() for name in SHA256):
        return {name: _checked(NEIGHBOUR / name) for name in SHA256}
    return {name: _checked(_downloaded(name)) for name in SHA256}


def _downloaded(name: str) -> Path:
    path = CACHE / "fashion-mnist" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with urllib.request.urlopen(ADDRESS + name, timeout=60) as answer:
            part.write_bytes(answer.read())
        part.rename(_checked(part, name).with_name(name))
    return path


def _checked(path: Path, name: str = "") -> Path:
    expected = SHA256[name or path.name]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"`{path}` must have the sha256 {expected}; got {found}: remove it and fetch it again")
    return path


def _images(files: Mapping[str, Path], part: str) -> Images:
    pixels = gzip.decompress(files[f"{part}-images-idx3-ubyte.gz"].read_bytes())[IMAGE_HEADER:]
    labels = gzip.decompress(files[f"{part}-labels-idx1-ubyte.gz"].read_bytes())[LABEL_HEADER:]
    values = np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE)
    return Images(values, np.frombuffer(labels, np.uint8))
