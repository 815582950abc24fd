"""A score held against what it says it came from: rebuild its window, judge it again, compare. Pure; files and brokers
are read in `cli/replay.py` and `kafka/`.

Why a scan of the records `[first_offset, close_offset)` rebuilds a window without the processor's watermark: a window
takes rows while the watermark is before its end, and it closes at `close_offset`, with the first record or silence that
moves the watermark there. So no row of it was late before, and none lies before `first_offset`, its first record. What
is left to decide about a row does not depend on the watermark (quarantined, rejected, refused), nor on other windows:
each knows by itself which frames it has counted. A merged window is made of its partitions' parts, each of which closes
where its own partition's time passes. `step` itself decides all that, over the model's own records: they
alone can fill the window, and with fewer records than the processor saw the watermark is never ahead of what it was, so
that the window is not closed too early.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, Final, Literal

from hydrophone.detectors import Reference
from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.identity import FramePriorities
from hydrophone.schemas.score import Source, SourcePart, Suspect, WindowScore
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import Effect, SummaryClosed, WindowClosed
from hydrophone.streams.judge import Judge, SampleRules
from hydrophone.streams.merging import MergeRules, merge
from hydrophone.streams.processor import PartitionState, StreamRules, step
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.shards import SHARD_MARK, ShardPlans
from hydrophone.streams.watermark import TimeRules

__all__ = [
    "UNREAD_REASONS",
    "Check",
    "Replayed",
    "compare",
    "from_evidence",
    "judge_again",
    "parts_of",
    "rebuild",
    "replay_scan",
    "scan_rules",
    "source_of",
]

UNREAD_REASONS: Final = frozenset({"no_reference", "no_rows"})
"""Windows whose rows were counted and not kept."""


@dataclass(frozen=True, slots=True)
class Check:
    """One fact of a score: as it was told, and as it is found now. `allowed` is how far numbers may lie apart."""

    name: str
    then: Any
    now: Any
    agrees: bool
    allowed: float | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """A score and everything that was looked at. It agrees when every check does."""

    score: WindowScore
    source: Literal["evidence", "topic", "score"]
    checks: tuple[Check, ...]

    @property
    def agrees(self) -> bool:
        return all(check.agrees for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        score = self.score
        place = {"id": str(score.id), "model": score.model, "window": score.window.model_dump()}
        return {**place, "from": self.source, "agrees": self.agrees, "checks": [asdict(check) for check in self.checks]}


def compare(score: WindowScore, again: WindowScore) -> tuple[Check, ...]:
    """What must be equal on any machine, and p-values within two steps of the null they were ranked in."""
    draws = score.calibration_windows or score.permutations
    checks = [
        _equal("status", _status(score), _status(again)),
        _equal("content hash", score.content_sha256, again.content_sha256),
        _equal("score id", str(score.id), str(again.id)),
        _equal("rows seen, tested", _rows(score), _rows(again)),
        _equal("alpha", score.alpha, again.alpha),
        _equal("suspects", _suspects(score.suspects), _suspects(again.suspects)),
    ]
    if score.joint is not None and again.joint is not None:
        checks.append(_near("p", score.joint.p_value, again.joint.p_value, 2 / (draws + 1)))
        checks.append(_equal("rejected, by its p", score.rejected, score.joint.p_value <= again.alpha))
    else:
        checks.append(_equal("rejected", score.rejected, again.rejected))
    checks.append(_equal("layers", sorted(score.layers), sorted(again.layers)))
    for name in sorted(score.layers.keys() & again.layers.keys()):
        then, now = score.layers[name], again.layers[name]
        allowed = 2 / (score.permutations + 1)
        checks.append(_near(f"p of {name}", then.p_value, now.p_value, allowed))
        checks.append(_near(f"adjusted p of {name}", then.p_adjusted, now.p_adjusted, allowed))
    return tuple(checks)


def _places(score: WindowScore, closed: WindowClosed) -> tuple[Check, ...]:
    """What only a scan can tell. Counts of rows in no window (late, quarantined) are not of one window."""
    source, then, now = source_of(score), score.counts, closed.counts
    ranges = [(part.partition, part.first_offset, part.close_offset) for part in parts_of(source)]
    again = [(part.partition, part.first_offset, part.close_offset) for part in closed.parts]
    return (
        _equal("offsets", ranges, again or [(closed.partition, closed.first_offset, closed.close_offset)]),
        _equal("duplicate records", then.duplicate, now.duplicate),
        _equal("ignored tensors", then.ignored_tensors, now.ignored_tensors),
    )


def replay_scan(
    score: WindowScore,
    records: Iterable[Record],
    rules: StreamRules,
    reference: Reference | None,
    sampling_key: bytes = b"",
) -> Replayed:
    """The score against its window as the records between its offsets have it. `sampling_key` is for merged windows."""
    closed = rebuild(score, records, rules, sampling_key)
    if closed is None:
        return Replayed(score, "topic", (_equal("rows seen", score.counts.seen, 0),))
    checks = compare(score, judge_again(score, closed, reference))
    return Replayed(score, "topic", (*checks, *_places(score, closed)))


def source_of(score: WindowScore) -> Source:
    """Raises `ConfigurationError` for a score that was made from files."""
    if score.source is None:
        raise ConfigurationError(
            f"score `{score.id}` was made from files and names no place in a topic; score the files again"
        )
    return score.source


def parts_of(source: Source) -> tuple[SourcePart, ...]:
    """The ranges of records that the window was made of; of one that was not merged there is one."""
    return source.parts or (
        SourcePart(partition=source.partition, first_offset=source.first_offset, close_offset=source.close_offset),
    )


def from_evidence(score: WindowScore, rows: Frame | None) -> WindowClosed:
    """The window as its evidence has it; counts are the score's own and are bound to it by the content hash."""
    source = score.source or Source(topic="", partition=-1, first_offset=0, close_offset=0)
    return WindowClosed(
        score.model,
        score.window.start_ms,
        score.window.end_ms,
        source.partition,
        source.first_offset,
        source.close_offset,
        score.counts,
        rows,
        (),
    )


def judge_again(score: WindowScore, closed: WindowClosed, reference: Reference | None) -> WindowScore:
    """The score this window gets, by the same `Judge`; no alert is decided on what one window alone knows."""
    judge = Judge(
        ReferenceCatalog([] if reference is None else [reference]),
        topic=score.source.topic if score.source else "",
        sample=SampleRules(score.k or 0, score.sampling_key_id or ""),
        false_alarms_per_month=1.0,
        window_ms=score.window.end_ms - score.window.start_ms,
        evidence=None,
    )
    again = judge.judge(closed, None, None).score
    return again.model_copy(update={"k": score.k})


def scan_rules(
    score: WindowScore,
    time: TimeRules,
    key: bytes,
    own: Contract | None,
    catalog: ReferenceCatalog | None,
    plans: ShardPlans | None = None,
) -> StreamRules:
    """The processor's rules with the score's window and k. Its window has the contract of its own reference; so have
    the model's other windows, unless a catalog knows what was announced for them."""
    if score.k is None:
        raise ConfigurationError(
            f"score `{score.id}` was made without sampling; only a stream's score can be scanned for"
        )
    start = score.window.start_ms
    mine = None if score.reason in UNREAD_REASONS else own

    def contract(model: str, window_start_ms: int) -> Contract | None:
        if window_start_ms == start:
            return mine
        return own if catalog is None else catalog.contract(model, window_start_ms)

    length = score.window.end_ms - start
    if source_of(score).parts and (plans is None or not plans.is_merged(score.model, start)):
        raise ConfigurationError(
            f"score `{score.id}` was merged from several partitions and `control` has no plan that says so; look at "
            "`--bootstrap` and `--prefix`, or replay from the score's evidence"
        )
    shards = plans if plans is not None and source_of(score).parts else ShardPlans()
    return StreamRules(replace(time, window_ms=length), contract, FramePriorities(key), score.k, shards=shards)


def rebuild(
    score: WindowScore, records: Iterable[Record], rules: StreamRules, sampling_key: bytes = b""
) -> WindowClosed | None:
    """The score's window from the records between its offsets, one partition's after another's; None where no row of it
    is there."""
    source, window = source_of(score), score.window
    parts = {part.partition: part for part in parts_of(source)}
    found = [_part_of(score, parts[number], of_one, rules) for number, of_one in groupby(records, _partition)]
    closed = [part for part in found if part is not None]
    if not source.parts or not closed:
        return closed[0] if closed else None
    return merge(closed, MergeRules(window.end_ms - window.start_ms, sampling_key, rules.k))


def _partition(record: Record) -> int:
    return record.partition


def _part_of(
    score: WindowScore, part: SourcePart, records: Iterable[Record], rules: StreamRules
) -> WindowClosed | None:
    """What one partition has of the window."""
    place = (score.model, score.window.start_ms)
    state = PartitionState(source_of(score).topic, part.partition, position=part.first_offset)
    for record in records:
        if (record.key or b"").partition(SHARD_MARK.encode())[0] != score.model.encode():
            continue
        state, effects = step(state, record, 0, rules)
        if (closed := _closed(effects, place)) is not None:
            return closed
    state.position = part.close_offset
    end = PartitionEnd(part.partition)
    state, effects = step(state, end, _when_it_closes(score.window.end_ms, rules.time), rules)
    return _closed(effects, place)


def _closed(effects: Iterable[Effect], place: tuple[str, int]) -> WindowClosed | None:
    windows = [e.summary if isinstance(e, SummaryClosed) else e for e in effects]
    return next((w for w in windows if isinstance(w, WindowClosed) and (w.model, w.start_ms) == place), None)


def _when_it_closes(end_ms: int, time: TimeRules) -> int:
    return end_ms + time.idle_ms + time.lateness_ms


def _equal(name: str, then: Any, now: Any) -> Check:
    return Check(name, then, now, then == now)


def _near(name: str, then: float, now: float, allowed: float) -> Check:
    """One step is 1 / (B + 1); a float's last digit must not decide."""
    return Check(name, then, now, abs(then - now) <= allowed * (1 + 1e-9), allowed)


def _status(score: WindowScore) -> str:
    return score.status if score.reason is None else f"{score.status}: {score.reason}"


def _rows(score: WindowScore) -> list[int]:
    return [score.counts.seen, score.counts.tested]


def _suspects(suspects: Iterable[Suspect]) -> list[list[Any]]:
    """Who they are, and where they stand in the log. Their order is by a number that machines round differently."""
    return sorted(
        ([str(s.frame_id), s.row, s.sample_id, s.client_id, s.topic, s.partition, s.offset] for s in suspects),
        key=lambda suspect: (suspect[0], suspect[1]),
    )
