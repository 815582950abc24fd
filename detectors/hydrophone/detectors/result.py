"""What a window test says, in memory, and how it becomes the event `WindowScore`. No arithmetic lives here."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from hydrophone.detectors.suspicion import Share
from hydrophone.schemas.event import WindowBounds, sha256_of
from hydrophone.schemas.origins import Origin, Origins
from hydrophone.schemas.score import (
    Branch,
    Contamination,
    Counts,
    Evidence,
    Joint,
    LayerScore,
    PriorShift,
    ReferenceId,
    Replay,
    Source,
    Strata,
    Suspect,
    Trace,
    WindowScore,
    score_id,
)

__all__ = ["BranchResult", "Calibration", "LayerResult", "SuspectRow", "WindowResult"]

Calibration = Literal["permutation", "stratified", "blocks", "windows"]

LABEL_LIMIT: Final = 200
"""Characters of a label that an event repeats: whoever sends a row must not choose how large a score becomes."""


@dataclass(frozen=True, slots=True)
class LayerResult:
    """`mmd2`: unbiased, global kernel at the median bandwidth; None for the output, which has no kernel. The p-values
    are those of the layer's largest statistic.
    """

    mmd2: float | None
    statistic: float
    p_value: float
    p_adjusted: float
    detection_rate: float | None = None


@dataclass(frozen=True, slots=True)
class BranchResult:
    layer: str
    measure: str
    bandwidth: float | None


@dataclass(frozen=True, slots=True)
class SuspectRow:
    """One row of the window, most suspicious first. `row` counts within the frame that carried it."""

    sample_id: str | None
    row: int
    score: float
    origin: Origin
    client_id: str | None = None
    p_value: float | None = None
    is_named: bool = False
    xy: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class WindowResult:
    """A window tested against a reference, or why it was not. `row_scores[i]` and `row_p_values[i]` belong to
    `origins[i]`: rows that repeat another are counted in `replay` and are in none of them.
    """

    model: str
    reference: ReferenceId
    status: Literal["tested", "not_tested"]
    alpha: float
    permutations: int
    seed: int
    device: str
    origins: Sequence[Origin]
    nominal_alpha: float | None = None
    calibration: Calibration = "permutation"
    calibration_windows: int | None = None
    effective_rows: int = 0
    bin_rows: int = 1
    rejected_rows: int = 0
    reason: str | None = None
    p_value: float | None = None
    statistic: float | None = None
    e_value: float | None = None
    branch: BranchResult | None = None
    layers: Mapping[str, LayerResult] = field(default_factory=dict)
    strata_rows: Mapping[str, int] | None = None
    detection_rate: float | None = None
    baseline_detection_rate: float | None = None
    suspects: tuple[SuspectRow, ...] = ()
    contamination: Share | None = None
    row_scores: tuple[float, ...] = field(default=(), repr=False)
    row_p_values: tuple[float, ...] = field(default=(), repr=False)
    prior_shift: PriorShift | None = None
    replay: Replay | None = None

    @property
    def rejected(self) -> bool:
        """The joint p-value is at most `alpha`, which is less than `nominal_alpha` where the reference is too small for
        that (`finite_reference.py`). Evidence, not yet an alarm."""
        return self.p_value is not None and self.p_value <= self.alpha

    @property
    def null_draws(self) -> int:
        """No p-value is below 1 / (null_draws + 1)."""
        return self.calibration_windows or self.permutations

    def to_score(
        self,
        *,
        window: WindowBounds,
        source: Source | None = None,
        trace: Trace | None = None,
        counts: Counts | None = None,
        k: int | None = None,
        nominal_k: int | None = None,
        sampling_key_id: str | None = None,
        evidence: Evidence | None = None,
        config_sha256: str | None = None,
    ) -> WindowScore:
        """The event. Without `counts` every row of the window was given to the test."""
        tested = len(self.origins) if self.status == "tested" else 0
        seen = len(self.origins) + (self.replay.rows if self.replay else 0)
        counts = counts or Counts(seen=seen, tested=tested, rejected=self.rejected_rows)
        return WindowScore(
            id=score_id(self.model, window, self.reference),
            model=self.model,
            window=window,
            source=source,
            reference=self.reference,
            counts=counts,
            k=k,
            nominal_k=nominal_k,
            sampling_key_id=sampling_key_id,
            status=self.status,
            reason=self.reason,
            joint=self._joint(),
            layers={
                name: LayerScore(
                    mmd2=r.mmd2,
                    statistic=r.statistic,
                    p_value=r.p_value,
                    p_adjusted=r.p_adjusted,
                    detection_rate=r.detection_rate,
                )
                for name, r in self.layers.items()
            },
            branch=self.branch
            and Branch(layer=self.branch.layer, measure=self.branch.measure, bandwidth=self.branch.bandwidth),
            alpha=self.alpha,
            nominal_alpha=self.nominal_alpha,
            rejected=self.rejected,
            calibration=self.calibration,
            calibration_windows=self.calibration_windows,
            strata=None if self.strata_rows is None else Strata(rows=dict(self.strata_rows)),
            effective_rows=self.effective_rows,
            bin_rows=self.bin_rows,
            suspects=tuple(_suspect(row, source) for row in self.suspects),
            contamination=self.contamination and Contamination(**asdict(self.contamination)),
            detection_rate=self.detection_rate,
            baseline_detection_rate=self.baseline_detection_rate,
            prior_shift=self.prior_shift,
            replay=self.replay,
            permutations=self.permutations,
            content_sha256=self.content_sha256(window=window, seen=counts.seen, k=k),
            evidence=evidence,
            device=self.device,
            config_sha256=config_sha256,
            trace=trace,
        )

    def content_sha256(self, *, window: WindowBounds, seen: int, k: int | None) -> str:
        """What was tested: model, window, reference, k, rows seen and tested with their identities, seed."""
        return sha256_of(
            {
                "model": self.model,
                "window": [window.start_ms, window.end_ms],
                "reference": self.reference.sha256,
                "k": k,
                "seen": seen,
                "rows": Origins.of(self.origins).identities(),
                "seed": self.seed,
            }
        )

    def _joint(self) -> Joint | None:
        if self.p_value is None or self.statistic is None or self.e_value is None:
            return None
        return Joint(p_value=self.p_value, statistic=self.statistic, e_value=self.e_value)


def _suspect(row: SuspectRow, source: Source | None) -> Suspect:
    known = row.origin.offset >= 0
    return Suspect(
        row=row.row,
        frame_id=uuid.UUID(row.origin.frame_id),
        score=row.score,
        p_value=row.p_value,
        is_named=row.is_named,
        sample_id=row.sample_id and row.sample_id[:LABEL_LIMIT],
        client_id=row.client_id and row.client_id[:LABEL_LIMIT],
        topic=source.topic if source and known else None,
        partition=row.origin.partition if known else None,
        offset=row.origin.offset if known else None,
        xy=row.xy,
    )
