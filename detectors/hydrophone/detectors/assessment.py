"""One window's rows to a `WindowResult`: which rows are tested, under which null, and what is said of them.

Rows come checked, finite and in order; the statistics are computed in `window_test.py`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hydrophone.detectors.artefact import Manifest, ReferenceArtefact
from hydrophone.detectors.calibration import WindowNull
from hydrophone.detectors.detection_rate import DetectionRates, RatePool, Redraws
from hydrophone.detectors.device import device_name
from hydrophone.detectors.finite_reference import level_in_force
from hydrophone.detectors.permutation import e_value
from hydrophone.detectors.prepared import PreparedReference
from hydrophone.detectors.prior_shift import prior_shift
from hydrophone.detectors.repeats import RepeatRule
from hydrophone.detectors.replay import replay_of
from hydrophone.detectors.result import BranchResult, Calibration, LayerResult, SuspectRow, WindowResult
from hydrophone.detectors.strata import exchangeable
from hydrophone.detectors.suspicion import contaminated_share, named_rows
from hydrophone.detectors.window_test import BranchName, WindowRows, WindowStatistics, window_statistics
from hydrophone.detectors.witness import row_scores
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.origins import Origin
from hydrophone.schemas.score import PriorShift, ReferenceId, Replay

__all__ = ["MIN_SAMPLES", "TOP_SUSPECTS", "Assessor"]

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
    alpha: float


class _Suspicion(NamedTuple):
    """Of each row of a window: its share of the statistic, its own p-value, whether it is named."""

    scores: NDArray[np.float64]
    p_values: NDArray[np.float64]
    is_named: NDArray[np.bool_]


class Assessor:
    """What one reference says of windows. Prepares the device on first use; for one thread at a time."""

    def __init__(self, artefact: ReferenceArtefact, device: torch.device, memory_bytes: int) -> None:
        self._artefact, self._device, self._memory_bytes = artefact, device, memory_bytes
        self.manifest: Manifest = artefact.manifest
        self.id = ReferenceId(version=self.manifest.version, sha256=self.manifest.sha256)

    @cached_property
    def prepared(self) -> PreparedReference:
        """The reference on its device; made once, takes as long as one large window."""
        return PreparedReference(self._artefact, self._device, memory_bytes=self._memory_bytes)

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

    def distinct(self, rows: Frame) -> tuple[Frame, Replay]:
        """Each row once, and what was repeated."""
        leaders = self.repeats.leaders(rows)
        replay = replay_of(self.repeats, self.manifest.repetition, rows, leaders)
        return (rows.take(leaders == np.arange(len(rows))) if replay.rows else rows), replay

    def assess(
        self, rows: Frame, left_out: int, null: WindowNull | None, *, detection_rate: bool = False
    ) -> WindowResult:
        """Test rows in canonical order, each repeat once; `left_out` of the window were not finite. `null` are clean
        windows to rank among, of which a larger window is made a sample."""
        if len(rows) < MIN_SAMPLES:
            return self.untested(rows.row_origins(), "too_few_rows", left_out)
        rows, replay = self.distinct(rows)
        if len(rows) < MIN_SAMPLES:
            return self.untested(rows.row_origins(), "too_few_distinct_rows", left_out, replay)
        if len(rows) < MIN_BLOCKS * (self.manifest.block_rows or 0):
            return self.untested(rows.row_origins(), "too_few_blocks", left_out, replay)
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
        named = named_rows(p_rows) & (verdict.p_value <= verdict.alpha)
        return WindowResult(
            self.manifest.model,
            self.id,
            "tested",
            verdict.alpha,
            self.manifest.permutations,
            self.prepared.seed,
            device_name(self._device),
            origins,
            nominal_alpha=self.manifest.alpha,
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
            return _Verdict("windows", len(null.statistics), statistic, *ranked, self.manifest.alpha)
        calibration = self._calibration(is_stratified=is_stratified)
        nominal, rows = self.manifest.alpha, statistics.witness.shape[1]
        # Never below the smallest p-value there is: nothing could be rejected.
        alpha = max(
            level_in_force(nominal, tested=rows, reference_rows=self.prepared.n), 1 / (self.manifest.permutations + 1)
        )
        return _Verdict(calibration, None, statistic, joint.p_value(), e_value(joint.maxima), alpha)

    def untested(
        self, origins: Sequence[Origin], reason: str, left_out: int = 0, replay: Replay | None = None
    ) -> WindowResult:
        """A window that says why it was not tested."""
        m = self.manifest
        return WindowResult(
            m.model,
            self.id,
            "not_tested",
            m.alpha,
            m.permutations,
            m.permutation_seed,
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


def _layers(statistics: WindowStatistics, rates: DetectionRates | None) -> dict[str, LayerResult]:
    by_layer: dict[str, list[int]] = {}
    for index, branch in enumerate(statistics.branches):
        by_layer.setdefault(branch.layer, []).append(index)
    groups = {name: statistics.joint.group(indices) for name, indices in by_layer.items()}
    rate = {} if rates is None else rates.layers
    return {name: LayerResult(statistics.mmd2.get(name), *group, rate.get(name)) for name, group in groups.items()}
