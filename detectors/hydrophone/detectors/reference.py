"""`Reference`: a model's clean behaviour, to test windows against. Reads nothing but what it is given.

Order, seed and permutations come from the reference alone, so the same rows give the same p-value wherever and in
whatever order they arrive (within 2 / (B + 1) across devices).
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from hydrophone.detectors.artefact import (
    ARRAYS,
    WINDOWS,
    Manifest,
    ReferenceArtefact,
    WindowCalibration,
    arrays_bytes,
)
from hydrophone.detectors.assessment import MIN_SAMPLES, Assessor
from hydrophone.detectors.calibration import WindowNull, shared_rows
from hydrophone.detectors.device import resolve_device
from hydrophone.detectors.fallback import Fallback
from hydrophone.detectors.fitting import BLOCK_ROWS, MAX_REFERENCE_ROWS, fit_artefact, time_order
from hydrophone.detectors.prepared import MEMORY_BYTES, PreparedReference
from hydrophone.detectors.result import WindowResult
from hydrophone.detectors.samples.family import SampleDetectors
from hydrophone.detectors.samples.files import read_samples, samples_files
from hydrophone.detectors.samples.manifest import SAMPLE_FILES
from hydrophone.schemas.errors import FrameInvalid, ReferenceInvalid
from hydrophone.schemas.frame import Frame, concat
from hydrophone.schemas.identity import origin_priorities
from hydrophone.schemas.score import ReferenceId

__all__ = ["Reference", "fit_reference"]


class Reference:
    """Immutable. `test` prepares the device on first use; threads that test against one reference take turns."""

    def __init__(self, artefact: ReferenceArtefact, *, device: str = "auto", memory_bytes: int = MEMORY_BYTES) -> None:
        self._artefact = artefact
        self._device = resolve_device(device)
        self._memory_bytes = memory_bytes
        self._fallback = Fallback(artefact, self._device, memory_bytes)
        self._turn = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        return self._artefact.manifest

    @property
    def id(self) -> ReferenceId:
        return self._assessor.id

    @property
    def _assessor(self) -> Assessor:
        return self._fallback.assessor

    @property
    def prepared(self) -> PreparedReference:
        """The reference on its device; made once, takes as long as one large window."""
        return self._assessor.prepared

    @cached_property
    def window_null(self) -> WindowNull | None:
        """Clean windows to rank among, where the reference was calibrated with some."""
        kept = self.manifest.windows
        return None if kept is None else WindowNull(kept.rows, self._artefact.arrays[WINDOWS])

    def calibrate(self, statistics: Sequence[float], *, rows: int, version: str | None = None) -> "Reference":
        """A new version that ranks windows among clean ones, given their joint statistics against this reference.

        `statistics[k]` is `WindowResult.statistic` of a clean window of which `rows` rows were tested. At least
        `MIN_WINDOWS` of them, or `ReferenceInvalid` is raised. Permutations stay those of this reference.
        """
        null = WindowNull(rows, np.array(statistics, np.float64))
        arrays = {**self._artefact.arrays, WINDOWS: null.statistics}
        digest = hashlib.sha256(arrays_bytes(arrays)).hexdigest()
        kept = WindowCalibration(rows=rows, windows=len(null.statistics), base_sha256=self.manifest.seed_sha256)
        changes = {"version": version or digest[:12], "windows": kept, "files": {**self.manifest.files, ARRAYS: digest}}
        artefact = ReferenceArtefact(self.manifest.model_copy(update=changes), arrays, self._artefact.others)
        return Reference(artefact, device=str(self._device), memory_bytes=self._memory_bytes)

    @cached_property
    def samples(self) -> SampleDetectors | None:
        """What judges single rows, where the reference was fitted with it. Raises `ReferenceInvalid` when its files,
        though unchanged, do not hold what the manifest says.
        """
        known = self.manifest.samples
        if known is None:
            return None
        return read_samples(known, self._artefact.others, model=self.manifest.model, device=self._device)

    def with_samples(self, samples: SampleDetectors, *, version: str | None = None) -> "Reference":
        """A new version that also judges single rows; windows are tested as before, with the same permutations."""
        if samples.model != self.manifest.model:
            raise ReferenceInvalid(f"sample detectors must be of model `{self.manifest.model}`; got `{samples.model}`")
        described = samples.manifest.model_copy(update={"base_sha256": self.manifest.seed_sha256})
        files = samples_files(samples)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        kept = {name: digest for name, digest in self.manifest.files.items() if name not in SAMPLE_FILES}
        together = hashlib.sha256("".join(sorted((kept | digests).values())).encode()).hexdigest()
        changes = {"version": version or together[:12], "samples": described, "files": kept | digests}
        artefact = ReferenceArtefact(self.manifest.model_copy(update=changes), self._artefact.arrays, files)
        return Reference(artefact, device=str(self._device), memory_bytes=self._memory_bytes)

    def save(self, directory: str | Path) -> None:
        """Write a folder of JSON and safetensors. Raises `ReferenceInvalid` if it holds another reference."""
        self._artefact.save(Path(directory))

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "auto", memory_bytes: int = MEMORY_BYTES) -> "Reference":
        """Read a folder and verify its hashes. Raises `ReferenceInvalid`."""
        return cls(ReferenceArtefact.load(Path(directory)), device=device, memory_bytes=memory_bytes)

    def check(self, frame: Frame) -> None:
        """Raise `FrameInvalid` unless the frame brings what this reference needs."""
        if frame.model != self.manifest.model:
            raise FrameInvalid(
                "wrong_model", f"this reference is for model `{self.manifest.model}`; got `{frame.model}`"
            )
        for name, contract in self.manifest.layers.items():
            if name not in frame.layers:
                raise FrameInvalid(
                    f"missing_tensor:layer.{name}", f"the reference needs `layer.{name}`; got {sorted(frame.layers)}"
                )
            if frame.layers[name].shape[1] != contract.dimensions:
                raise FrameInvalid(
                    "wrong_dimension",
                    f"`layer.{name}` must have {contract.dimensions} features; got {frame.layers[name].shape[1]}",
                )
        width = self.manifest.output_classes
        if width is not None and (frame.output is None or frame.output.shape[1] != width):
            raise FrameInvalid(
                "missing_tensor:output" if frame.output is None else "wrong_dimension",
                f"the reference needs `output` with {width} classes; "
                f"got {'none' if frame.output is None else frame.output.shape[1]}",
            )
        if self.manifest.has_predicted and frame.predicted is None and frame.output is None:
            raise FrameInvalid(
                "missing_tensor:predicted",
                "the reference matches predicted classes, so each frame needs `predicted` or `output`; got neither",
            )

    def test(self, frames: Frame | Iterable[Frame], *, detection_rate: bool = False) -> WindowResult:
        """Test all finite rows as one window, no sampling. Raises `FrameInvalid` when a layer is missing or misshapen.

        Rows that repeat another are tested once, and counted. A window of fewer than `MIN_SAMPLES` distinct rows is
        `not_tested`. The order of frames and rows does not matter.
        Where the device has no memory left the test works in smaller parts, then on the CPU; `device` says so.
        `detection_rate` adds the layer-wise method's metric (`detection_rate.py`) and up to half of the time.
        """
        parts = [frames] if isinstance(frames, Frame) else list(frames)
        if not parts:
            return self._assessor.untested((), "no_rows")
        rows, left_out = self._usable(parts)
        if rows is None:
            return self._assessor.untested((), "no_finite_rows", left_out)
        null = self.window_null
        with self._turn:
            return self._fallback.test(lambda on: on.assess(rows, left_out, null, detection_rate=detection_rate))

    def shared_rows(self, traffic: Frame) -> int:
        """How many rows of `traffic` are the reference's own: clean windows made of them would look too clean."""
        kept = {name: self._artefact.arrays[f"reference.{name}"] for name in self.manifest.layers}
        return shared_rows(traffic, kept)

    def statistic(self, window: Frame, *, rows: int) -> float | None:
        """The joint statistic of `rows` of a clean window's rows, to calibrate with; None where it cannot be had: too
        few rows, or too few of classes the reference holds. Raises `FrameInvalid` as `test` does.
        """
        found, _ = self._usable([window])
        found = None if found is None else self._assessor.distinct(found)[0]
        if found is None or len(found) < max(rows, MIN_SAMPLES):
            return None
        result = self._assessor.assess(found.take(np.arange(rows)), 0, null=None)
        return None if self.manifest.has_predicted and result.calibration == "permutation" else result.statistic

    def _usable(self, parts: Sequence[Frame]) -> tuple[Frame | None, int]:
        """Finite rows in ascending priority under the reference's own key: no arrival order can steer the test."""
        for frame in parts:
            self.check(frame)
        rows = concat(parts)
        finite = rows.finite_rows(self.manifest.layers)
        left_out = 0 if finite is None else int((~finite).sum())
        if left_out == len(rows):
            return None, left_out
        rows = rows if finite is None else rows.take(finite)
        if self.manifest.block_rows is not None:
            return rows.take(time_order(rows)), left_out
        origins = rows.row_origins()
        order = origins.order_by(origin_priorities(origins, bytes.fromhex(self.manifest.seed_sha256)))
        return rows.take(order), left_out


def fit_reference(
    frames: Iterable[Frame],
    *,
    permutations: int = 999,
    alpha: float = 0.05,
    seed: int = 0,
    fit_share: float = 1 / 3,
    device: str = "auto",
    max_reference_rows: int = MAX_REFERENCE_ROWS,
    calibration: Literal["stratified", "blocks"] = "stratified",
    block_rows: int = BLOCK_ROWS,
    version: str | None = None,
) -> Reference:
    """Fit on natural validation traffic: rows with a label other than 0 are left out and counted.

    A `fit_share` of the rows, drawn by `seed`, gives scales and bandwidths; up to `max_reference_rows` of the others
    are the reference proper. With `blocks`, for traffic whose rows depend on their neighbours in time, the same holds
    of runs of `block_rows` rows in time order, and those change sides, classes ignored.

    Raises `ReferenceInvalid` when there are too few rows or the frames do not fit together.
    """
    artefact = fit_artefact(
        frames,
        permutations=permutations,
        alpha=alpha,
        seed=seed,
        fit_share=fit_share,
        max_reference_rows=max_reference_rows,
        block_rows=block_rows if calibration == "blocks" else None,
        version=version,
    )
    return Reference(artefact, device=device)
