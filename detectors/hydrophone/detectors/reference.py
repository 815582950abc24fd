"""`Reference`: a model's clean behaviour, to test windows against. Reads nothing but what it is given.

Order, seed and permutations come from the reference alone, so the same rows give the same p-value wherever and in
whatever order they arrive (within 2 / (B + 1) across devices).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hydrophone.detectors.artefact import (
    ARRAYS,
    WINDOWS,
    Manifest,
    ReferenceArtefact,
    WindowCalibration,
    arrays_bytes,
)
from hydrophone.detectors.calibration import WindowNull, shared_rows
from hydrophone.detectors.detection_rate import DetectionRates, RatePool, Redraws
from hydrophone.detectors.device import device_name, resolve_device
from hydrophone.detectors.fitting import BLOCK_ROWS, MAX_REFERENCE_ROWS, fit_artefact, time_order
from hydrophone.detectors.permutation import e_value
from hydrophone.detectors.prepared import MEMORY_BYTES, PreparedReference
from hydrophone.detectors.prior_shift import prior_shift
from hydrophone.detectors.repeats import RepeatRule
from hydrophone.detectors.replay import replay_of
from hydrophone.detectors.result import BranchResult, Calibration, LayerResult, SuspectRow, WindowResult
from hydrophone.detectors.strata import exchangeable
from hydrophone.detectors.suspicion import contaminated_share, named_rows
from hydrophone.detectors.window_test import BranchName, WindowRows, WindowStatistics, window_statistics
from hydrophone.detectors.witness import row_scores
from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame, concat
from hydrophone.schemas.identity import origin_priorities
from hydrophone.schemas.origins import Origin
from hydrophone.schemas.score import PriorShift, ReferenceId, Replay

__all__ = ["MIN_SAMPLES", "TOP_SUSPECTS", "Reference", "fit_reference"]

MIN_SAMPLES: Final = 20
"""Rows a window needs to be tested at all."""

MIN_EFFECTIVE: Final = 20
"""Window rows that must have reference rows of their class; with fewer, permutations ignore classes and say so."""

MIN_BLOCKS: Final = 3
"""Blocks a window needs where blocks change sides."""

TOP_SUSPECTS: Final = 10

MOST_NAMED: Final = 100
"""Rows that an event names at most: an event must stay small however large the attack."""


class _Verdict(NamedTuple):
    """The joint statistic and what it means under the null that could be used."""

    calibration: Calibration
    windows: int | None
    statistic: float
    p_value: float
    e_value: float


class _Suspicion(NamedTuple):
    """Of each row of a window: its share of the statistic, its own p-value, whether it is named."""

    scores: NDArray[np.float64]
    p_values: NDArray[np.float64]
    is_named: NDArray[np.bool_]


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
        changes = {"version": version or digest[:12], "windows": kept, "files": {ARRAYS: digest}}
        artefact = ReferenceArtefact(self.manifest.model_copy(update=changes), arrays)
        return Reference(artefact, device=str(self._device), memory_bytes=self._memory_bytes)

    @cached_property
    def _redraws(self) -> Redraws:
        p = self.prepared
        pools = {layer.name: RatePool(layer.rows, layer.bandwidths) for layer in p.layers}
        strata = np.repeat(np.arange(len(p.counts)), p.counts)
        return Redraws(pools, strata, alpha=self.manifest.alpha, seed=p.seed, memory_bytes=self._memory_bytes)

    @cached_property
    def repeats(self) -> RepeatRule:
        """Which rows of a window are one row, several times."""
        return RepeatRule.of(self.manifest, self._artefact.arrays)

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
        `detection_rate` adds the layer-wise method's metric (`detection_rate.py`) and up to half of the time.
        """
        parts = [frames] if isinstance(frames, Frame) else list(frames)
        if not parts:
            return self._untested((), "no_rows")
        rows, left_out = self._usable(parts)
        if rows is None:
            return self._untested((), "no_finite_rows", left_out)
        return self._test(rows, left_out, self.window_null, detection_rate=detection_rate)

    def shared_rows(self, traffic: Frame) -> int:
        """How many rows of `traffic` are the reference's own: clean windows made of them would look too clean."""
        kept = {name: self._artefact.arrays[f"reference.{name}"] for name in self.manifest.layers}
        return shared_rows(traffic, kept)

    def statistic(self, window: Frame, *, rows: int) -> float | None:
        """The joint statistic of `rows` of a clean window's rows, to calibrate with; None where it cannot be had: too
        few rows, or too few of classes the reference holds. Raises `FrameInvalid` as `test` does.
        """
        found, _ = self._usable([window])
        found = None if found is None else self._distinct(found)[0]
        if found is None or len(found) < max(rows, MIN_SAMPLES):
            return None
        result = self._test(found.take(np.arange(rows)), 0, null=None)
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

    def _distinct(self, rows: Frame) -> tuple[Frame, Replay]:
        """Each row once, and what was repeated."""
        leaders = self.repeats.leaders(rows)
        replay = replay_of(self.repeats, self.manifest.repetition, rows, leaders)
        return (rows.take(leaders == np.arange(len(rows))) if replay.rows else rows), replay

    def _test(
        self, rows: Frame, left_out: int, null: WindowNull | None, *, detection_rate: bool = False
    ) -> WindowResult:
        if len(rows) < MIN_SAMPLES:
            return self._untested(rows.row_origins(), "too_few_rows", left_out)
        rows, replay = self._distinct(rows)
        if len(rows) < MIN_SAMPLES:
            return self._untested(rows.row_origins(), "too_few_distinct_rows", left_out, replay)
        if len(rows) < MIN_BLOCKS * (self.manifest.block_rows or 0):
            return self._untested(rows.row_origins(), "too_few_blocks", left_out, replay)
        if null is not None and len(rows) > null.rows:  # their order is random, so the first are a sample
            rows = rows.take(np.arange(null.rows))
        origins = rows.row_origins()
        assigned, is_stratified = self._strata(rows)
        layers = {name: rows.layers[name] for name in self.manifest.layers}
        output = rows.output if self.manifest.output_classes is not None else None
        with torch.inference_mode():
            statistics = window_statistics(self.prepared, WindowRows(layers, assigned, is_stratified, output))
            scores, p_rows = row_scores(statistics).cpu().numpy(), statistics.p_values.cpu().numpy()
            rates = self._rates(layers, assigned, is_stratified=is_stratified) if detection_rate else None
        carried = statistics.branches[int(statistics.joint.statistics[:, 0].argmax())]
        verdict = self._verdict(
            statistics, null if null and null.rows == len(rows) else None, is_stratified=is_stratified
        )
        named = named_rows(p_rows) & (verdict.p_value <= self.manifest.alpha)
        return WindowResult(
            self.manifest.model,
            self.id,
            "tested",
            self.manifest.alpha,
            self.manifest.permutations,
            self.prepared.seed,
            device_name(self._device),
            origins,
            calibration=verdict.calibration,
            calibration_windows=verdict.windows,
            effective_rows=statistics.effective_rows,
            bin_rows=statistics.bin_rows,
            p_value=verdict.p_value,
            statistic=verdict.statistic,
            e_value=verdict.e_value,
            branch=BranchResult(carried.layer, carried.measure, carried.bandwidth),
            layers=_layers(statistics, rates),
            strata_rows=self._strata_rows(assigned) if is_stratified else None,
            detection_rate=None if rates is None else rates.joint,
            baseline_detection_rate=self.manifest.baseline_detection_rate if detection_rate else None,
            rejected_rows=left_out,
            suspects=self._suspects(rows, origins, _Suspicion(scores, p_rows, named), carried),
            contamination=contaminated_share(p_rows, self.prepared.n),
            row_scores=tuple(scores.tolist()),
            row_p_values=tuple(p_rows.tolist()),
            prior_shift=self._prior_shift(rows),
            replay=replay,
        )

    def _verdict(self, statistics: WindowStatistics, null: WindowNull | None, *, is_stratified: bool) -> _Verdict:
        joint = statistics.joint
        statistic = float(joint.maxima[0])
        can_rank = self.manifest.block_rows is not None or is_stratified == self.manifest.has_predicted
        if null is not None and can_rank:  # statistics of other splits are not alike
            ranked = null.p_value(statistic), null.e_value(statistic)
            return _Verdict("windows", len(null.statistics), statistic, *ranked)
        calibration = self._calibration(is_stratified=is_stratified)
        return _Verdict(calibration, None, statistic, joint.p_value(), e_value(joint.maxima))

    def _untested(
        self, origins: Sequence[Origin], reason: str, left_out: int = 0, replay: Replay | None = None
    ) -> WindowResult:
        m = self.manifest
        seed = int.from_bytes(bytes.fromhex(m.seed_sha256)[:8], "big")
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
            replay=replay,
        )

    def _prior_shift(self, rows: Frame) -> PriorShift | None:
        """None where there are no classes."""
        predicted, strata = rows.classes(), self.prepared.strata
        if strata is None or predicted is None:
            return None
        window = strata.counts(strata.assign(predicted))
        return prior_shift(strata.names(), self.manifest.stratum_rows, window, seed=self.prepared.seed)

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

    def _rates(
        self, layers: Mapping[str, NDArray[np.floating]], assigned: NDArray[np.int64], *, is_stratified: bool
    ) -> DetectionRates | None:
        window = {layer.name: layer.scaled(layers[layer.name]) for layer in self.prepared.layers}
        return self._redraws.rates(window, assigned, is_stratified=is_stratified)

    def _suspects(
        self, rows: Frame, origins: Sequence[Origin], found: _Suspicion, carried: BranchName
    ) -> tuple[SuspectRow, ...]:
        """The most suspicious rows, and all that are named up to `MOST_NAMED`."""
        # What the output carried is shown where the input is closest: the first layer in name order.
        layer = next((x for x in self.prepared.layers if x.name == carried.layer), self.prepared.layers[0])
        order = np.lexsort((-found.scores, found.p_values, ~found.is_named))
        top = order[: max(TOP_SUSPECTS, min(int(found.is_named.sum()), MOST_NAMED))]
        places = (layer.scaled(rows.layers[layer.name][top]) @ layer.axes).cpu().numpy()
        return tuple(
            SuspectRow(
                sample_id=rows.sample_ids[i] if rows.sample_ids is not None else None,
                client_id=rows.client_ids[i] if rows.client_ids is not None else None,
                row=origins[i].row,
                score=float(found.scores[i]),
                p_value=float(found.p_values[i]),
                is_named=bool(found.is_named[i]),
                origin=origins[i],
                xy=(float(x), float(y)),
            )
            for i, (x, y) in zip(top.tolist(), places, strict=True)
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


def _layers(statistics: WindowStatistics, rates: DetectionRates | None) -> dict[str, LayerResult]:
    by_layer: dict[str, list[int]] = {}
    for index, branch in enumerate(statistics.branches):
        by_layer.setdefault(branch.layer, []).append(index)
    groups = {name: statistics.joint.group(indices) for name, indices in by_layer.items()}
    rate = {} if rates is None else rates.layers
    return {name: LayerResult(statistics.mmd2.get(name), *group, rate.get(name)) for name, group in groups.items()}
