"""The invariant every fault must leave in force: each window exactly once, as a batch over the whole log computes it.

What is in no window is in `late` or `deadletter`, once, by its place in the log. Finds; asserting is the caller's.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.batch import Batch, BatchRules, BatchWindow, Rows, batch_of
from tests.support.broker import Record, read_all
from tests.support.processor import load, scores_of

from hydrophone.detectors import Reference
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.headers import dead_letter_from_headers
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.topics import ACTIVATIONS, DEADLETTER, LATE

__all__ = ["Reckoning", "expected_windows", "late_rows", "reckon"]

Place = tuple[int, int]
"""Partition and offset."""

WindowKey = tuple[str, int]
"""Model and start."""


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What is wrong, by window or by place; all empty where the promise was kept."""

    batch: Batch
    scores: list[WindowScore]
    missing: list[WindowKey]
    doubled: list[WindowKey]
    differing: list[tuple[WindowKey, str]]
    unaccounted: list[str]

    @property
    def faults(self) -> dict[str, object]:
        found = {name: getattr(self, name) for name in ("missing", "doubled", "differing", "unaccounted")}
        return {name: value for name, value in found.items() if value}


def reckon(
    bootstrap: str, prefix: str, rules: BatchRules, references: Mapping[str, Path], *, by_clock: bool = False
) -> Reckoning:
    """Read everything back and compare. `by_clock`: idle partitions were closed by the clock, so rows may be late that
    no record made late; those that a record made late must be told in any case."""
    log = read_all(bootstrap, ACTIVATIONS.full_name(prefix))
    told = late_rows(read_all(bootstrap, LATE.full_name(prefix)))
    strict = batch_of(log, rules)
    batch = batch_of(log, rules, late=dict(told)) if by_clock else strict
    scores = scores_of(bootstrap, prefix)
    found = Counter((score.model, score.window.start_ms) for score in scores)
    unaccounted = _late_faults(told, strict, by_clock=by_clock)
    unaccounted += _dead_faults(read_all(bootstrap, DEADLETTER.full_name(prefix)), batch)
    unaccounted += _told_too_often(scores, batch)
    return Reckoning(
        batch,
        scores,
        sorted(batch.windows.keys() - found.keys()),
        sorted(key for key, times in found.items() if times > 1),
        list(_differing(scores, batch, rules, {model: load(folder) for model, folder in references.items()})),
        unaccounted,
    )


def expected_windows(log: list[Record], rules: BatchRules, late: Mapping[Place, Rows] | None) -> set[WindowKey]:
    return set(batch_of(log, rules, late=late).windows)


def late_rows(records: Iterable[Record]) -> list[tuple[Place, Rows]]:
    """The places and rows that `late` names, as often as it does."""
    return [(_place(record), tuple(json.loads(record.headers["rows"] or b""))) for record in records]


def _place(record: Record) -> Place:
    partition, offset = (int(record.headers[f"hydrophone_{name}"] or b"") for name in ("partition", "offset"))
    return partition, offset


def _differing(
    scores: Iterable[WindowScore], batch: Batch, rules: BatchRules, references: Mapping[str, Reference]
) -> Iterable[tuple[WindowKey, str]]:
    for score in scores:
        key = (score.model, score.window.start_ms)
        expected = batch.windows.get(key)
        difference = (
            "no such window" if expected is None else _difference(score, expected, rules, references.get(score.model))
        )
        if difference:
            yield key, difference


def _difference(score: WindowScore, window: BatchWindow, rules: BatchRules, reference: Reference | None) -> str:
    """The first thing that differs, or nothing."""
    source = score.source
    pairs: list[tuple[str, object, object]] = [
        ("partition", source.partition if source else None, window.partition),
        ("first_offset", source.first_offset if source else None, window.first_offset),
        ("seen", score.counts.seen, window.seen),
        ("duplicate", score.counts.duplicate, window.duplicate),
    ]
    if reference is not None and window.rows and score.reference is not None:
        bounds = WindowBounds(start_ms=window.start_ms, end_ms=window.start_ms + rules.window_ms)
        k = score.k or rules.k  # fewer than asked for under overload, and says so
        result = reference.test(window.sampled_rows(k))
        content = result.content_sha256(window=bounds, seen=window.seen, k=score.k)
        pairs += [
            ("content_sha256", score.content_sha256, content),
            ("p_value", score.joint.p_value if score.joint else None, result.p_value if score.joint else None),
            ("status", score.status, result.status),
        ]
    return next((f"`{name}`: {got!r}, not {wanted!r}" for name, got, wanted in pairs if got != wanted), "")


def _late_faults(told: list[tuple[Place, Rows]], strict: Batch, *, by_clock: bool) -> list[str]:
    faults = [f"late told {times} times: {place}" for place, times in Counter(p for p, _ in told).items() if times > 1]
    by_place = dict(told)
    for place in sorted(strict.late.keys() | by_place.keys()):
        wanted, got = set(strict.late.get(place, ())), set(by_place.get(place, ()))
        if wanted - got or (got - wanted and not by_clock):
            faults.append(f"late at {place}: rows {sorted(got)}, not {sorted(wanted)}")
    return faults


def _dead_faults(records: Iterable[Record], batch: Batch) -> list[str]:
    letters = [
        dead_letter_from_headers([(n, v.encode() if isinstance(v, str) else v) for n, v in record.headers.items()])
        for record in records
    ]
    got = Counter(((letter.partition, letter.offset), letter.reason) for letter in letters)
    wanted = Counter(batch.dead.items())
    return [
        f"dead letter {key}: {got[key]} times, not {wanted[key]}" for key in (got | wanted) if got[key] != wanted[key]
    ]


def _told_too_often(scores: Iterable[WindowScore], batch: Batch) -> list[str]:
    """Rows that are in no window are told by the next score; the last ones wait for a window that never came."""
    scores = list(scores)
    told = {
        "rejected": sum(score.counts.rejected for score in scores),
        "quarantined": sum(score.counts.quarantined for score in scores),
        "late": sum(score.counts.late_since_previous for score in scores),
    }
    known = {
        "rejected": batch.rejected,
        "quarantined": batch.quarantined,
        "late": sum(map(len, batch.late.values())),
    }
    return [
        f"{name}: scores tell of {told[name]} rows, the log has {known[name]}"
        for name in told
        if told[name] > known[name]
    ]
