"""A closed window to its score and alert. Kafka, time and windows live elsewhere; the statistics in `detectors`."""

from dataclasses import dataclass

from hydrophone.detectors import Reference, WindowResult
from hydrophone.detectors.finite_reference import shared_variance
from hydrophone.schemas.alert import Alert
from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.event import WindowBounds, sha256_of
from hydrophone.schemas.operations import ModelState
from hydrophone.schemas.score import Counts, Evidence, Source, Trace, WindowScore, score_id
from hydrophone.streams.alerting import decide
from hydrophone.streams.budget import alarm_rules
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.evidence import EvidenceStore

__all__ = ["Judge", "Judgement", "SampleRules"]


@dataclass(frozen=True, slots=True)
class SampleRules:
    """How rows were sampled, for whoever checks a score."""

    k: int
    sampling_key_id: str


@dataclass(frozen=True, slots=True)
class Judgement:
    score: WindowScore
    alert: Alert | None
    state: ModelState | None


class Judge:
    """Tests windows against the references in force. The same window always gets the same score and ids."""

    def __init__(
        self,
        catalog: ReferenceCatalog,
        *,
        topic: str,
        sample: SampleRules,
        false_alarms_per_month: float,
        window_ms: int,
        evidence: EvidenceStore | None,
        config_sha256: str | None = None,
        detection_rate: bool = False,
    ) -> None:
        self._catalog, self._topic, self._sample = catalog, topic, sample
        self._budget, self._window_ms = false_alarms_per_month, window_ms
        self._evidence, self._config_sha256 = evidence, config_sha256
        self._detection_rate = detection_rate

    def judge(self, closed: WindowClosed, state: ModelState | None, traceparent: str | None) -> Judgement:
        """Never raises for what a window holds: what cannot be tested is said not to be."""
        reference = self._catalog.in_force(closed.model, closed.start_ms)
        trace = Trace(traceparent=traceparent) if traceparent else None
        if reference is None or closed.sample is None:
            reason = "no_reference" if reference is None else "no_rows"
            return Judgement(self._untested(closed, reference, reason, trace), None, state)
        try:
            result = reference.test(closed.sample, detection_rate=self._detection_rate)
        except FrameInvalid as refusal:
            return Judgement(self._untested(closed, reference, refusal.reason, trace), None, state)
        score = self._score(closed, result, trace)
        rules = alarm_rules(
            false_alarms_per_month=self._budget, window_ms=self._window_ms, permutations=result.null_draws
        )
        shared = shared_variance(
            result.calibration,
            tested=result.effective_rows,
            reference_rows=reference.manifest.sizes.reference,
        )
        state, alert = decide(rules, state, score, shared=shared)
        return Judgement(score, alert, state)

    def _score(self, closed: WindowClosed, result: WindowResult, trace: Trace | None) -> WindowScore:
        evidence: Evidence | None = None
        if result.rejected and self._evidence is not None and closed.sample is not None:
            evidence = self._evidence.keep(closed.sample, closed.start_ms)
        tested = len(result.origins) if result.status == "tested" else 0
        return result.to_score(
            window=_bounds(closed),
            source=self._source(closed),
            trace=trace,
            counts=closed.counts.model_copy(update={"tested": tested}),
            k=self._sample.k,
            sampling_key_id=self._sample.sampling_key_id,
            evidence=evidence,
            config_sha256=self._config_sha256,
        )

    def _untested(
        self, closed: WindowClosed, reference: Reference | None, reason: str, trace: Trace | None
    ) -> WindowScore:
        counts: Counts = closed.counts.model_copy(update={"tested": 0})
        identity = reference.id if reference else None
        return WindowScore(
            id=score_id(closed.model, _bounds(closed), identity),
            model=closed.model,
            window=_bounds(closed),
            source=self._source(closed),
            reference=identity,
            counts=counts,
            k=self._sample.k,
            sampling_key_id=self._sample.sampling_key_id,
            status="not_tested",
            reason=reason,
            alpha=reference.manifest.alpha if reference else 0.0,
            rejected=False,
            calibration="permutation",
            effective_rows=0,
            permutations=reference.manifest.permutations if reference else 0,
            content_sha256=sha256_of([closed.model, closed.start_ms, closed.end_ms, counts.seen, reason]),
            device="none",
            config_sha256=self._config_sha256,
            trace=trace,
        )

    def _source(self, closed: WindowClosed) -> Source:
        return Source(
            topic=self._topic,
            partition=closed.partition,
            first_offset=closed.first_offset,
            close_offset=closed.close_offset,
        )


def _bounds(closed: WindowClosed) -> WindowBounds:
    return WindowBounds(start_ms=closed.start_ms, end_ms=closed.end_ms)
