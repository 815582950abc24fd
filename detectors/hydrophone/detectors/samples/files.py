"""Sample detectors as the files of a reference's folder, and back. Hashes are checked where the folder is read."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hydrophone.detectors.samples.attribution import AttackForest
from hydrophone.detectors.samples.density import ClassDensity
from hydrophone.detectors.samples.family import Measuring, SampleDetectors
from hydrophone.detectors.samples.gate import Gate
from hydrophone.detectors.samples.layers import LayerCloseness
from hydrophone.detectors.samples.manifest import FOREST, SAMPLES, SampleManifest
from hydrophone.detectors.samples.suspicion import Suspicion
from hydrophone.detectors.samples.uncertainty import Uncertainty
from hydrophone.schemas.errors import ReferenceInvalid

__all__ = ["read_samples", "samples_files"]


def samples_files(detectors: SampleDetectors) -> dict[str, bytes]:
    """Their bytes by file name; equal detectors give equal bytes."""
    arrays = {name: np.ascontiguousarray(array) for name, array in detectors.arrays().items()}
    files = {SAMPLES: bytes(save(arrays))}
    return files if detectors.forest is None else files | {FOREST: detectors.forest.dump()}


def read_samples(
    manifest: SampleManifest, files: Mapping[str, bytes], *, model: str, device: torch.device
) -> SampleDetectors:
    """Raises `ReferenceInvalid` for anything that is not what `samples_files` wrote under this manifest."""
    try:
        arrays = load(files[SAMPLES])
        parts = _parted(arrays)
        measuring = _measuring(manifest, parts, device)
        suspicion, gate_rank = (Suspicion.load(parts[name]) for name in ("suspicion", "gate-rank"))
        _check(manifest, measuring, suspicion, gate_rank)
    except (KeyError, ValueError, TypeError, IndexError, SafetensorError, RuntimeError) as error:
        raise ReferenceInvalid(f"`{SAMPLES}` cannot be read: {error}; fetch or fit it again") from None
    forest = AttackForest.load(files[FOREST], manifest) if manifest.attacks else None
    return SampleDetectors(manifest, model, measuring, suspicion, gate_rank, forest, device)


def _measuring(
    manifest: SampleManifest, parts: Mapping[str, Mapping[str, NDArray[Any]]], device: torch.device
) -> Measuring:
    classes = None if manifest.classes is None else np.array(manifest.classes, np.int64)
    layers, gate = _by_layer(manifest, parts["layers"]), _by_layer(manifest, parts["gate"])
    return Measuring(
        Uncertainty(manifest.uncertainty, manifest.output_classes),
        LayerCloseness.load(layers, classes, device),
        None if classes is None else ClassDensity.load(manifest.embedding, parts["density"], classes, device),
        Gate.load(gate, device),
    )


def _parted(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    """By what stands before the first slash."""
    found: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
    for name, array in arrays.items():
        part, _, rest = name.partition("/")
        found[part][rest] = array
    return found


def _by_layer(manifest: SampleManifest, arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    """Names end in a part without a dot; what stands before it is the layer's, which may hold dots."""
    found: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in manifest.order}
    for name, array in arrays.items():
        layer, _, part = name.rpartition(".")
        found[layer][part] = array
    return found


def _check(manifest: SampleManifest, measuring: Measuring, suspicion: Suspicion, gate_rank: Suspicion) -> None:
    """Sizes that the arrays and the manifest must agree on: no row may be read past an array's end."""
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    ranks = {
        "suspicion": (suspicion, len(manifest.measures), len(manifest.branches)),
        "gate": (gate_rank, len(manifest.layers), 1),
    }
    for name, (rank, K, B) in ranks.items():
        shapes |= {
            f"{name} centre": (rank.centre.shape, (2 * K,)),
            f"{name} weights": (rank.weights.shape, (B, 2 * K)),
            f"{name} calibration": (rank.calibration.shape[1:], (K,)),
            f"{name} upper": (rank.upper.knots.shape[:1], (K,)),
            f"{name} lower": (rank.lower.knots.shape[:1], (K,)),
            f"{name} branches": (rank.branches.knots.shape[:1], (B,)),
        }
    for name, width in manifest.layers.items():
        shapes[f"layer {name}"] = (tuple(measuring.layers.closeness[name].means.shape[1:]), (width,))
        shapes[f"gate {name}"] = (tuple(measuring.gate.mixtures[name].axes.shape[:1]), (width,))
    for name, (found, wanted) in shapes.items():
        if found != wanted:
            raise ValueError(f"{name} must have shape {wanted}; got {found}")
    known = len(manifest.classes or ())
    if measuring.density is not None and len(measuring.density.starts) != known + 1:
        raise ValueError(f"densities must be of {known} classes; got {len(measuring.density.starts) - 1}")
    if not set(manifest.measures) <= set(measuring.measures()):
        raise ValueError(f"measures must be among {measuring.measures()}; got {manifest.measures}")
