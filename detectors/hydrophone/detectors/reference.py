"""`Reference`: a model's clean behaviour, to test windows against. Reads nothing but what it is given.

Order, seed and permutations come from the reference alone, so the same rows give the same p-value wherever and in
whatever order they arrive (within 2 / (B + 1) across devices).
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hydrophone.detectors.artefact import Manifest, ReferenceArtefact
from hydrophone.detectors.device import device_name, resolve_device
from hydrophone.detectors.fitting import BLOCK_ROWS, MAX_REFERENCE_ROWS, fit_artefact, time_order
from hydrophone.detectors.permutation import e_value
from hydrophone.detectors.prepared import MEMORY_BYTES, PreparedReference
from hydrophone.detectors.result import BranchResult, Calibration, LayerResult, SuspectRow, WindowResult
from hydrophone.detectors.strata import exchangeable
from hydrophone.detectors.window_test import BranchName, WindowRows, WindowStatistics, window_statistics
from hydrophone.detectors.witness import row_scores
from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame, concat
from hydrophone.schemas.identity import origin_priorities
from hydrophone.schemas.origins import Origin
from hydrophone.schemas.score import ReferenceId

__all__ = ["MIN_SAMPLES", "TOP_SUSPECTS", "Reference", "fit_reference"]

MIN_SAMPLES: Final = 20
"""Rows a window needs to be tested at all."""

MIN_EFFECTIVE: Final = 20
"""Window rows that must have reference rows of their class; with fewer, permutations ignore classes and say so."""

MIN_BLOCKS: Final = 3
"""Blocks a window needs where blocks change sides."""

TOP_SUSPECTS: Final = 10


class Reference:
    """Immutable. `test` prepares the device on first use; call it from one thread at a time."""

    def __init__(self, artefact: ReferenceArtefact, *, device: str = "auto", memory_bytes: int = MEMORY_BYTES) -> None:
        self._artefact = artefact
        self._device = resolve_device(device)
        self._memory_bytes = memory_bytes

    @property
    def manifest(self) -> Manifest:
        return self._artefact.manifest

    @cached_property
    def id(self) -> ReferenceId:
        return ReferenceId(version=self.manifest.version, sha256=self.manifest.sha256)

    @cached_property
    def prepared(self) -> PreparedReference:
        """The reference on its device; made once, takes as long as one large window."""
        return PreparedReference(self._artefact, self._device, memory_bytes=self._memory_bytes)

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

    def test(self, frames: Frame | Iterable[Frame]) -> WindowResult:
        """Test all finite rows as one window, no sampling. Raises `FrameInvalid` when a layer is missing or misshapen.

        A window of fewer than `MIN_SAMPLES` rows is `not_tested`. The order of frames and rows does not matter.
        """
        parts = [frames] if isinstance(frames, Frame) else list(frames)
        if not parts:
            return self._untested((), "no_rows")
        for frame in parts:
            self.check(frame)
        rows = concat(parts)
        finite = rows.finite_rows(self.manifest.layers)
        left_out = 0 if finite is None else int((~finite).sum())
        if left_out == len(rows):
            return self._untested((), "no_finite_rows", left_out)
        rows = rows if finite is None else rows.take(finite)
        if self.manifest.block_rows is not None:
            return self._test(rows.take(time_order(rows)), left_out)
        # Ascending priority under the reference's own key: no arrival order can steer the test.
        origins = rows.row_origins()
        order = origins.order_by(origin_priorities(origins, bytes.fromhex(self.id.sha256)))
        return self._test(rows.take(order), left_out)

    def _test(self, rows: Frame, left_out: int) -> WindowResult:
        origins = rows.row_origins()
        if len(rows) < MIN_SAMPLES:
            return self._untested(origins, "too_few_rows", left_out)
        if len(rows) < MIN_BLOCKS * (self.manifest.block_rows or 0):
            return self._untested(origins, "too_few_blocks", left_out)
        assigned, is_stratified = self._strata(rows)
        layers = {name: rows.layers[name] for name in self.manifest.layers}
        output = rows.output if self.manifest.output_classes is not None else None
        with torch.inference_mode():
            statistics = window_statistics(self.prepared, WindowRows(layers, assigned, is_stratified, output))
            scores = row_scores(statistics).cpu().numpy()
        carried = statistics.branches[int(statistics.joint.statistics[:, 0].argmax())]
        return WindowResult(
            self.manifest.model,
            self.id,
            "tested",
            self.manifest.alpha,
            self.manifest.permutations,
            self.prepared.seed,
            device_name(self._device),
            origins,
            calibration=self._calibration(is_stratified=is_stratified),
            effective_rows=statistics.effective_rows,
            bin_rows=statistics.bin_rows,
            p_value=statistics.joint.p_value(),
            statistic=float(statistics.joint.maxima[0]),
            e_value=e_value(statistics.joint.maxima),
            branch=BranchResult(carried.layer, carried.measure, carried.bandwidth),
            layers=_layers(statistics),
            strata_rows=self._strata_rows(assigned) if is_stratified else None,
            rejected_rows=left_out,
            suspects=self._suspects(rows, origins, scores, carried),
            row_scores=tuple(float(score) for score in scores),
        )

    def _untested(self, origins: Sequence[Origin], reason: str, left_out: int = 0) -> WindowResult:
        m, seed = self.manifest, int.from_bytes(bytes.fromhex(self.id.sha256)[:8], "big")
        return WindowResult(
            m.model,
            self.id,
            "not_tested",
            m.alpha,
            m.permutations,
            seed,
            device_name(self._device),
            origins,
            rejected_rows=left_out,
            reason=reason,
        )

    def _calibration(self, *, is_stratified: bool) -> Calibration:
        if self.manifest.block_rows is not None:
            return "blocks"
        return "stratified" if is_stratified else "permutation"

    def _strata(self, rows: Frame) -> tuple[NDArray[np.int64], bool]:
        """Each row's stratum, and whether splits stay within strata. They do not where there are no classes, or too few
        rows of classes the reference holds, or where blocks of rows change sides."""
        predicted, strata = rows.classes(), self.prepared.strata
        if strata is None or predicted is None:
            return np.zeros(len(rows), np.int64), False
        assigned = strata.assign(predicted)
        if self.manifest.block_rows is not None:
            return assigned, False
        return assigned, exchangeable(self.prepared.counts, strata.counts(assigned)) >= MIN_EFFECTIVE

    def _strata_rows(self, assigned: NDArray[np.int64]) -> dict[str, int]:
        strata = self.prepared.strata
        assert strata is not None, "strata were in use"
        return {name: rows for name, rows in zip(strata.names(), strata.counts(assigned), strict=True) if rows}

    def _suspects(
        self, rows: Frame, origins: Sequence[Origin], scores: NDArray[np.float64], carried: BranchName
    ) -> tuple[SuspectRow, ...]:
        # What the output carried is shown where the input is closest: the first layer in name order.
        layer = next((x for x in self.prepared.layers if x.name == carried.layer), self.prepared.layers[0])
        top = np.argsort(-scores, kind="stable")[:TOP_SUSPECTS]
        places = (layer.scaled(rows.layers[layer.name][top]) @ layer.axes).cpu().numpy()
        return tuple(
            SuspectRow(
                sample_id=rows.sample_ids[i] if rows.sample_ids is not None else None,
                client_id=rows.client_ids[i] if rows.client_ids is not None else None,
                row=origins[i].row,
                score=float(scores[i]),
                origin=origins[i],
                xy=(float(x), float(y)),
            )
            for i, (x, y) in zip(top, places, strict=True)
        )


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


def _layers(statistics: WindowStatistics) -> dict[str, LayerResult]:
    by_layer: dict[str, list[int]] = {}
    for index, branch in enumerate(statistics.branches):
        by_layer.setdefault(branch.layer, []).append(index)
    groups = {name: statistics.joint.group(indices) for name, indices in by_layer.items()}
    return {name: LayerResult(statistics.mmd2.get(name), *group) for name, group in groups.items()}
