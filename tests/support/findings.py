"""Findings of every kind for hypothesis, with texts that break lines, fields and encodings. Nothing here asserts."""

from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.incidents import (
    LAST_MS,
    AlertedWindow,
    Carrier,
    Cause,
    Closing,
    Decision,
    Finding,
    Incident,
    Producer,
    Related,
    Suppression,
    Totals,
    dedup_key,
    finding_of,
    incident_id,
    status_of,
)
from hydrophone.schemas.score import Branch, Evidence, Suspect

__all__ = ["HOSTILE", "findings"]

HOSTILE: Final = '|=\\\n\r\t\0\x1b\x7f\x85\u2028 "]é😀\ufeffx'
INT64: Final = st.integers(-(2**63), 2**63 - 1)
TIMES: Final = st.integers(0, LAST_MS) | st.integers(1_700_000_000_000, 1_800_000_000_000)
COUNTS: Final = st.integers(0, 2**53 - 1)
PROBABILITIES: Final = st.floats(0, 1)
FINITE: Final = st.floats(allow_nan=False, allow_infinity=False)
TEXTS: Final = st.one_of(
    st.text(max_size=12),
    st.text(HOSTILE, max_size=12),
    st.sampled_from(["", " ", "CEF:0|a|b", "\ud800", "\0" * 900, "=" * 500, "é" * 2_000, "a" * 40_000]),
)
MODELS: Final = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._@:/-]{0,30}\Z") | st.just("m" * 200)
SHA256: Final = st.just("ab" * 32)
TECHNIQUES: Final = st.sampled_from(
    ["AML.T0015", "AML.T0043", "AML.T0043.001", "AML.T0040", "AML.T9999", "AML.T9999.001"]
)
SEVERITIES: Final = st.sampled_from(["low", "medium", "high", "critical"])
RULES: Final = st.sampled_from(["immediate", "sequential", "replay"])
ADDRESSES: Final = st.sampled_from(["https://hydrophone.example/incidents/1?a=b#c", "http://[::1]:8080", None])

BRANCHES: Final = st.builds(Branch, layer=TEXTS, measure=TEXTS, bandwidth=st.none() | FINITE)
BOUNDS: Final = st.builds(WindowBounds, start_ms=INT64, end_ms=INT64)
EVIDENCE: Final = st.builds(Evidence, uri=TEXTS, sha256=SHA256)
WINDOWS: Final = st.builds(
    AlertedWindow,
    window=BOUNDS,
    severity=SEVERITIES,
    rules=st.lists(RULES, max_size=3).map(tuple),
    p_value=st.none() | PROBABILITIES,
    statistic=st.none() | FINITE,
    rows_seen=COUNTS,
    branch=st.none() | BRANCHES,
    evidence=st.none() | EVIDENCE,
)
SUSPECTS: Final = st.builds(
    Suspect,
    row=INT64,
    score=st.floats(),
    sample_id=st.none() | TEXTS,
    client_id=st.none() | TEXTS,
    topic=st.none() | TEXTS,
    partition=st.none() | INT64,
    offset=st.none() | INT64,
    xy=st.none() | st.tuples(st.floats(), st.floats()),
)
DECISIONS: Final = st.builds(Decision, by=TEXTS, reason=TEXTS, at_ms=TIMES)
SUPPRESSIONS: Final = st.builds(Suppression, by=TEXTS, reason=TEXTS, at_ms=TIMES, until_ms=st.none() | TIMES)
VERDICTS: Final = st.sampled_from(["true_positive", "false_positive", "benign", "duplicate", "insufficient_data"])
CLOSINGS: Final = st.one_of(
    st.builds(Closing, reason=st.sampled_from(["quiet", "silent"]), at_ms=TIMES, detail=TEXTS),
    st.builds(Closing, reason=st.just("operator"), at_ms=TIMES, detail=TEXTS, decision=DECISIONS, verdict=VERDICTS),
)


def _several(entries: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Few, or the same few many times over."""
    few = st.lists(entries, max_size=3).map(tuple)
    return st.builds(lambda some, times: some * times, few, st.sampled_from([1, 1, 1, 40]))


@st.composite
def findings(draw: Callable[..., Any]) -> Finding:
    tenant, model = draw(st.sampled_from(["default", "a-b.c_9"])), draw(MODELS)
    signal = draw(st.sampled_from(["difference", "replay", "drill"]))
    start_ms, sequence = draw(TIMES), draw(st.just(1) | st.integers(2, 2**31 - 1))
    key = dedup_key(tenant, model, signal)
    first, last = sorted((draw(TIMES), draw(TIMES)))
    opened, updated = sorted((draw(TIMES), draw(TIMES)))
    acknowledged, suppressed = draw(st.none() | DECISIONS), draw(st.none() | SUPPRESSIONS)
    closed = draw(st.none() | CLOSINGS) if sequence > 1 else None
    cause = draw(st.sampled_from(_causes(sequence, suppressed, closed)))
    incident = Incident(
        id=incident_id(key, start_ms),
        tenant=tenant,
        model=model,
        signal=signal,
        dedup_key=key,
        episode_start_ms=start_ms,
        sequence=sequence,
        status=status_of(acknowledged, suppressed, closed),
        severity=draw(SEVERITIES),
        confidence=draw(PROBABILITIES),
        title=draw(TEXTS),
        recommended_action=draw(TEXTS),
        first_seen_ms=first,
        last_seen_ms=last,
        opened_ms=opened,
        updated_ms=updated,
        totals=Totals(**{name: draw(COUNTS) for name in Totals.model_fields}),
        p_value=draw(st.none() | PROBABILITIES),
        statistic=draw(st.none() | FINITE),
        carriers=draw(_several(st.builds(Carrier, layer=TEXTS, measure=TEXTS, windows=COUNTS, statistic=FINITE))),
        windows=draw(_several(WINDOWS)),
        suspects=draw(_several(SUSPECTS)),
        clients=draw(_several(TEXTS)),
        related=draw(_several(st.builds(Related, model=MODELS, shared_clients=COUNTS))),
        correlation_id=draw(st.uuids()),
        atlas_techniques=draw(_several(TECHNIQUES)),
        acknowledged=acknowledged,
        suppressed=suppressed,
        closed=closed,
    )
    before = draw(SEVERITIES) if cause == "severity_changed" else None
    producer = Producer(version=draw(TEXTS), instance=draw(st.none() | TEXTS))
    return finding_of(incident, cause, producer, severity_before=before, url=draw(ADDRESSES))


def _causes(sequence: int, suppressed: Suppression | None, closed: Closing | None) -> list[Cause]:
    """The causes such a step may have."""
    if sequence == 1:
        return ["opened"]
    if closed:
        return ["closed"]
    updates: list[Cause] = ["still_seen", "severity_changed", "correlated", "acknowledged", "reopened"]
    return [*updates, "suppressed"] if suppressed else [*updates, "suppression_ended"]
