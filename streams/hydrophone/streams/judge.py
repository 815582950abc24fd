"""A closed window to its score and alert. Kafka, time and windows live elsewhere; the statistics in `detectors`."""

from dataclasses import dataclass

import numpy as np

from hydrophone.detectors import Reference, WindowResult
from hydrophone.detectors.finite_reference import shared_variance
from hydrophone.schemas.alert import Alert
from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.event import WindowBounds, sha256_of
from hydrophone.schemas.operations import ModelState
from hydrophone.schemas.score import Counts, Evidence, Source, Trace, WindowScore, score_id
from hydrophone.streams.alerting import decide
from hydrophone.streams.attention import NO_ATTENTION, Attention, look_at_rows
from hydrophone.streams.budget import alarm_rules
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.evidence import EvidenceStore
from hydrophone.streams.failpoints import reach

__all__ = ["Examined", "Judge", "Judgement", "Question", "SampleRules"]


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


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be tested: a closed window, the reference in force at its start, and at most how many rows."""

    closed: WindowClosed
    reference: Reference | None
    k: int


@dataclass(frozen=True, slots=True)
class Examined:
    """What the test found, whatever was before it; without a `result` the `reason` why there is none. `attention`: what
    its rows say one by one, and what that means for clients."""

    question: Question
    result: WindowResult | None = None
    reason: str = ""
    evidence: Evidence | None = None
    attention: Attention = NO_ATTENTION


class Judge:
    """Tests windows against the references in force. The same window always gets the same score and ids.

    `examine` is the long part and depends on the window alone: it may run in another thread. `decide` is quick and
    depends on the model's windows before, so it is called in their order.
    """

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
        """All at once. Never raises for what a window holds: what cannot be tested is said not to be."""
        return self.decide(self.examine(self.question(closed, self._sample.k)), state, traceparent)

    def question(self, closed: WindowClosed, k: int) -> Question:
        """Under overload k is less than was asked for, but not less than the rows of windows to rank among."""
        reference = self._catalog.in_force(closed.model, closed.start_ms)
        kept = reference.manifest.windows if reference is not None else None
        return Question(closed, reference, max(k, min(kept.rows, self._sample.k)) if kept else k)

    def examine(self, question: Question) -> Examined:
        """The test, and the evidence kept where it rejects."""
        reach("in-test")
        sample, reference = question.closed.sample, question.reference
        if reference is None or sample is None:
            return Examined(question, reason="no_reference" if reference is None else "no_rows")
        if len(sample) > question.k:  # rows stand in ascending priority: the first are a smaller sample
            sample = sample.take(np.arange(question.k))
        try:
            result = reference.test(sample, detection_rate=self._detection_rate)
        except FrameInvalid as refusal:
            return Examined(question, reason=refusal.reason)
        attention = look_at_rows(reference, sample, result)
        evidence: Evidence | None = None
        if result.rejected and self._evidence is not None:
            evidence = self._evidence.keep(sample, question.closed.start_ms)
        return Examined(question, result, evidence=evidence, attention=attention)

    def decide(self, examined: Examined, state: ModelState | None, traceparent: str | None) -> Judgement:
        """The score, and what the alarm rules make of it after the model's windows before."""
        trace = Trace(traceparent=traceparent) if traceparent else None
        reference, result = examined.question.reference, examined.result
        if reference is None or result is None:
            return Judgement(self._untested(examined, trace), None, state)
        score = self._score(examined, result, trace)
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

    def _score(self, examined: Examined, result: WindowResult, trace: Trace | None) -> WindowScore:
        closed = examined.question.closed
        tested = len(result.origins) if result.status == "tested" else 0
        score = result.to_score(
            window=_bounds(closed),
            source=self._source(closed),
            trace=trace,
            counts=closed.counts.model_copy(update={"tested": tested}),
            k=examined.question.k,
            nominal_k=self._sample.k,
            sampling_key_id=self._sample.sampling_key_id,
            evidence=examined.evidence,
            config_sha256=self._config_sha256,
        )
        return examined.attention.drawn_to(score)

    def _untested(self, examined: Examined, trace: Trace | None) -> WindowScore:
        closed, reference = examined.question.closed, examined.question.reference
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
            nominal_k=self._sample.k,
            sampling_key_id=self._sample.sampling_key_id,
            status="not_tested",
            reason=examined.reason,
            alpha=reference.manifest.alpha if reference else 0.0,
            rejected=False,
            calibration="permutation",
            effective_rows=0,
            permutations=reference.manifest.permutations if reference else 0,
            content_sha256=sha256_of([closed.model, closed.start_ms, closed.end_ms, counts.seen, examined.reason]),
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
            parts=closed.parts,
        )


def _bounds(closed: WindowClosed) -> WindowBounds:
    return WindowBounds(start_ms=closed.start_ms, end_ms=closed.end_ms)
