"""A reference put to the test on labelled rows: per attack, per measure, per layer, per source. The parts are computed
in the modules beside this one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.detectors.evaluation.abstention import (
    Abstention,
    Level,
    Naming,
    abstention,
    levels,
    naming,
)
from hydrophone.detectors.evaluation.curves import Curve, Decided, Rate, auc, curve, decided, rate
from hydrophone.detectors.evaluation.picture import Picture, picture
from hydrophone.detectors.evaluation.truth import Truth
from hydrophone.detectors.reference import Reference
from hydrophone.detectors.samples import ABSTAIN, ACCEPT, REJECT, SampleDetectors, SampleVerdicts
from hydrophone.schemas.errors import FrameInvalid, ReferenceInvalid
from hydrophone.schemas.frame import Frame

__all__ = ["AttackReport", "Evaluation", "SourceReport", "evaluate"]

WINDOW_ROWS: Final = 1_000
"""Rows of a source whose detection rates are computed, at most: 100 re-draws of 100 of them."""


@dataclass(frozen=True, slots=True)
class AttackReport:
    """One attack against the natural rows. `measures`: ROC-AUC of each score by itself, whichever way it points;
    `reject` and `flag`: as a detector, by rejecting alone and by abstaining too."""

    attack: str
    rows: int
    curve: Curve
    reject: Decided
    flag: Decided
    measures: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Rows of one source: how they were decided, how many the gate lets pass, and the layer-wise method's detection
    rate of them as a window (None: too few rows, or no kernel)."""

    source: str
    is_hostile: bool
    rows: int
    accepted: Rate
    abstained: Rate
    rejected: Rate
    gate_accepts: dict[str, Rate]
    detection_rate: float | None
    layers: dict[str, float | None]
    window_p_value: float | None


@dataclass(frozen=True)
class Evaluation:
    """`all_attacks`: every attack at once against the natural rows. `shared_rows`: rows that the reference itself
    holds; above 0 the numbers flatter. `reasons`: what could not be judged, with how many rows."""

    model: str
    reference: str
    rows: int
    shared_rows: int
    all_attacks: AttackReport
    attacks: tuple[AttackReport, ...]
    sources: tuple[SourceReport, ...]
    levels: tuple[Level, ...]
    abstention: Abstention
    naming: Naming | None
    reasons: dict[str, int]
    picture: Picture | None


def evaluate(frames: Iterable[Frame], reference: Reference, *, with_picture: bool = True) -> Evaluation:
    """Raises `FrameInvalid` where rows lack labels or what the reference needs, `ReferenceInvalid` where the reference
    has no per-sample detectors. Frames should be of sources that nothing was fitted on."""
    samples = reference.samples
    if samples is None:
        raise ReferenceInvalid(
            f"reference `{reference.manifest.version}` has no per-sample detectors to evaluate; fit it with them"
        )
    truth = Truth.of(frames)
    reference.check(truth.frame)
    verdicts = samples.judge(truth.frame)
    return Evaluation(
        model=truth.frame.model,
        reference=reference.manifest.version,
        rows=len(truth.frame),
        shared_rows=reference.shared_rows(truth.frame),
        all_attacks=_attack("all attacks", truth.is_hostile, truth, verdicts),
        attacks=tuple(_attack(name, _hostile(truth, name), truth, verdicts) for name in truth.attacks),
        sources=tuple(_source(name, truth, verdicts, reference, samples) for name in (*truth.others, *truth.attacks)),
        levels=levels(verdicts.p_value, truth),
        abstention=abstention(verdicts.decision, truth),
        naming=naming(verdicts, truth, dict(samples.manifest.attacks)),
        reasons=_reasons(verdicts),
        picture=picture(truth, samples.manifest.embedding) if with_picture else None,
    )


def _hostile(truth: Truth, name: str) -> NDArray[np.bool_]:
    return np.asarray(truth.is_hostile & (truth.sources == name))


def _attack(name: str, is_positive: NDArray[np.bool_], truth: Truth, verdicts: SampleVerdicts) -> AttackReport:
    meant = is_positive | truth.is_natural
    positive, decision = is_positive[meant], verdicts.decision[meant]
    areas = {measure: auc(values[meant], positive) for measure, values in verdicts.scores.items()}
    return AttackReport(
        attack=name,
        rows=int(is_positive.sum()),
        curve=curve(verdicts.suspicion[meant], positive),
        reject=decided(decision == REJECT, positive),
        flag=decided(decision != ACCEPT, positive),
        measures={measure: area if area is None else max(area, 1 - area) for measure, area in areas.items()},
    )


def _source(
    name: str, truth: Truth, verdicts: SampleVerdicts, reference: Reference, samples: SampleDetectors
) -> SourceReport:
    rows = truth.of_source(name)
    is_hostile = bool(truth.is_hostile[rows].all())
    rows = rows[truth.is_hostile[rows] == is_hostile]
    decision = verdicts.decision[rows]
    counts = {what: rate(int((decision == what).sum()), len(rows)) for what in (ACCEPT, ABSTAIN, REJECT)}
    joint, layers, p_value = _detection_rates(truth.frame.take(rows), reference)
    return SourceReport(
        source=name,
        is_hostile=is_hostile,
        rows=len(rows),
        accepted=counts[ACCEPT],
        abstained=counts[ABSTAIN],
        rejected=counts[REJECT],
        gate_accepts=_gate(rows, verdicts, samples),
        detection_rate=joint,
        layers=layers,
        window_p_value=p_value,
    )


def _gate(rows: NDArray[np.intp], verdicts: SampleVerdicts, samples: SampleDetectors) -> dict[str, Rate]:
    """Rows that each layer's mixture finds likely enough, at a threshold that turns away as many clean rows as the gate
    does; `(all)`: that the gate itself lets pass, which looks at all of them."""
    level, found = samples.manifest.gate_level, {}
    for name in samples.gated_layers:
        clean = np.sort(samples.clean_log_likelihoods(name))
        values = verdicts.scores[f"gate.log_likelihood.{name}"][rows]
        p_values = (1 + np.searchsorted(clean, values, side="right")) / (len(clean) + 1)
        found[name] = rate(int((np.isfinite(values) & (p_values > level)).sum()), len(rows))
    return found | {"(all)": rate(int((verdicts.scores["gate.p_value"][rows] > level).sum()), len(rows))}


def _detection_rates(rows: Frame, reference: Reference) -> tuple[float | None, dict[str, float | None], float | None]:
    try:
        result = reference.test(rows.take(np.arange(min(len(rows), WINDOW_ROWS))), detection_rate=True)
    except FrameInvalid:
        return None, {}, None
    layers = {name: layer.detection_rate for name, layer in result.layers.items()}
    return result.detection_rate, layers, result.p_value


def _reasons(verdicts: SampleVerdicts) -> dict[str, int]:
    counts: dict[str, int] = {}
    for said in verdicts.reasons:
        for reason in said:
            counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items()))
