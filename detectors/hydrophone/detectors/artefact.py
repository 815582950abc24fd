"""A reference on disk and in memory: manifest, arrays, hashes. Fitting and testing do not live here.

A folder of `manifest.json`, safetensors files and, where attacks were learnt, a forest in skops' format, of which only
named types are read: nothing in it can run code. The reference's identity is the sha256
of its manifest, which holds the sha256 of every other file.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hydrophone.detectors.closeness import KEPT_AXES
from hydrophone.detectors.samples.manifest import SampleManifest
from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.event import canonical_json

__all__ = [
    "ARRAYS",
    "CLASSES",
    "MANIFEST",
    "OUTPUTS",
    "WINDOWS",
    "LayerContract",
    "Manifest",
    "ReferenceArtefact",
    "Repetition",
    "Sizes",
    "WindowCalibration",
    "arrays_bytes",
]

MANIFEST: Final = "manifest.json"
ARRAYS: Final = "arrays.safetensors"
CLASSES: Final = "classes"
OUTPUTS: Final = "outputs"
WINDOWS: Final = "windows.statistics"
FORMAT: Final = "1"
FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(safetensors|skops)")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerContract(_Part):
    """What a frame must bring for this layer."""

    dimensions: int = Field(ge=1)
    median_distance: float = Field(gt=0, description="of scaled fit rows; bandwidths are multiples of it")


class Sizes(_Part):
    fit: int
    reference: int
    excluded_labelled: int = Field(description="rows with a label other than 0, left out")
    excluded_bad: int = Field(description="rows with a non-finite value, left out")
    excluded_repeated: int = Field(description="rows that repeat another of their block, left out")
    excluded_surplus: int = Field(description="rows beyond the largest permuted reference")


class WindowCalibration(_Part):
    """Clean windows to rank a window among."""

    rows: int = Field(ge=2, description="of each window; larger ones are sub-sampled to as many")
    windows: int = Field(ge=1)
    base_sha256: str = Field(description="of the reference they were tested against; its permutations are used on")


class Repetition(_Part):
    """How often natural rows repeat another in blocks of `size` that follow each other in time."""

    size: int = Field(ge=2)
    blocks: int = Field(ge=1)
    repeated: int = Field(ge=0, description="rows that repeat another of their block, over all blocks")
    squares: int = Field(ge=0, description="sum of the blocks' squared numbers of such rows: how evenly they fall")


class Manifest(_Part):
    """Everything about a reference but its arrays."""

    format: Literal["1"] = FORMAT
    model: str
    version: str
    layers: dict[str, LayerContract]
    has_predicted: bool
    output_classes: int | None = Field(description="width of `output` where frames must bring it")
    classes: tuple[int, ...] = Field(description="predicted classes with a permutation stratum of their own")
    stratum_rows: tuple[int, ...] = Field(
        description="natural rows that nothing was fitted on: of each class in `classes`, then of all others"
    )
    sizes: Sizes
    repetition: tuple[Repetition, ...] = Field(min_length=1, description="smallest blocks first")
    fit_share: float
    seed: int
    block_rows: int | None = Field(
        None, ge=2, description="rows are in time order, so many to a block, and blocks change sides; null: strata"
    )
    permutations: int = Field(ge=1)
    alpha: float = Field(gt=0, lt=1)
    windows: WindowCalibration | None = None
    baseline_detection_rate: float | None = Field(
        None, ge=0, le=1, description="share of re-draws of one half of the reference rows that differ from the other"
    )
    samples: SampleManifest | None = Field(None, description="detectors of single rows; null: none were fitted")
    files: dict[str, str] = Field(description="sha256 of each file")

    def text(self) -> str:
        """The bytes that are hashed, so the same manifest always has the same identity, if fitted before a field was
        known too."""
        values = self.model_dump(mode="json")
        later = ("baseline_detection_rate", "block_rows", "windows", "samples")
        return canonical_json({k: v for k, v in values.items() if v is not None or k not in later}) + "\n"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()

    @property
    def seed_sha256(self) -> str:
        """What fixes permutations and row order: neither calibrating a reference nor adding sample detectors to it may
        change its statistics."""
        added = self.windows or self.samples
        return self.sha256 if added is None else added.base_sha256

    @property
    def permutation_seed(self) -> int:
        return int.from_bytes(bytes.fromhex(self.seed_sha256)[:8], "big")


def arrays_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


@dataclass(frozen=True, eq=False)
class ReferenceArtefact:
    """Per layer: `fit.<layer>.mean|scale` `[D]`, `fit.<layer>.axes` `[D, 2]`, `reference.<layer>` `[n, D]` as tapped;
    `classes` `[n]` where there are strata; `windows.statistics` `[K]` where clean windows were kept. `others` are the
    files of the sample detectors, as they are.
    """

    manifest: Manifest
    arrays: Mapping[str, NDArray[Any]]
    others: Mapping[str, bytes] = field(default_factory=dict)

    def save(self, directory: Path) -> None:
        """Write the folder. Refuses to change one that holds another reference: they are immutable."""
        manifest = directory / MANIFEST
        if manifest.exists() and manifest.read_text() != self.manifest.text():
            raise ReferenceInvalid(
                f"`{directory}` already holds another reference; references never change, choose a new folder"
            )
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ARRAYS).write_bytes(arrays_bytes(self.arrays))
        for name, content in self.others.items():
            (directory / name).write_bytes(content)
        manifest.write_text(self.manifest.text())

    @classmethod
    def load(cls, directory: Path) -> "ReferenceArtefact":
        """Read and verify every byte. Raises `ReferenceInvalid`."""
        manifest = _manifest(directory / MANIFEST)
        contents = {name: _verified(directory / name, digest) for name, digest in manifest.files.items()}
        try:
            arrays = load(contents[ARRAYS])
            _check_arrays(manifest, arrays)
        except (KeyError, ValueError, SafetensorError) as error:
            raise ReferenceInvalid(f"`{directory}` holds no readable `{ARRAYS}`: {error}") from None
        return cls(manifest, arrays, {name: content for name, content in contents.items() if name != ARRAYS})


def _manifest(path: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ReferenceInvalid(
            f"`{path.parent}` is no reference: it holds no `{MANIFEST}`; make one with `hydrophone reference fit`"
        ) from None
    except (OSError, ValueError, ValidationError) as error:
        raise ReferenceInvalid(f"`{path}` cannot be read: {error}") from None
    if not all(FILE_NAME.fullmatch(name) for name in manifest.files):
        raise ReferenceInvalid(
            f"`{path}` may name safetensors and skops files of its own folder alone; got {sorted(manifest.files)}"
        )
    return manifest


def _check_arrays(manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> None:
    n = manifest.sizes.reference
    shapes: dict[str, tuple[int, ...]] = {CLASSES: (n,)} if manifest.has_predicted else {}
    if manifest.output_classes is not None:
        shapes[OUTPUTS] = (n, manifest.output_classes)
    if manifest.windows is not None:
        shapes[WINDOWS] = (manifest.windows.windows,)
    strata = len(manifest.classes) + 1 if manifest.has_predicted else 1
    for name, contract in manifest.layers.items():
        D = contract.dimensions
        shapes |= {f"fit.{name}.mean": (D,), f"fit.{name}.scale": (D,), f"fit.{name}.axes": (D, 2)}
        shapes[f"reference.{name}"] = (n, D)
        k = min(D, KEPT_AXES)
        closeness = {"means": (strata, D), "axes": (D, k), "variances": (k,), "beyond": (1,)}
        shapes |= {f"closeness.{name}.{part}": shape for part, shape in closeness.items()}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}; got {arrays[name].shape}")


def _verified(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReferenceInvalid(f"`{path}` cannot be read: {error}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ReferenceInvalid(
            f"`{path}` was changed: the manifest says sha256 {digest}, the file has {found}; fetch or fit it again"
        )
    return content
