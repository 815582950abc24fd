"""From rows that arrived to the records on `verdicts`. The detectors are in `detectors/samples`; when they are asked,
in `arrivals.py`; no window is known here."""

import logging
import uuid
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hydrophone.detectors import Reference
from hydrophone.detectors.samples import ACCEPT, SampleVerdicts
from hydrophone.schemas.frame import Frame, concat
from hydrophone.schemas.verdict import DECISIONS, FrameVerdicts, Judged, RecordPlace, Verdict, verdict_id
from hydrophone.streams.batching import layout
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.effects import RowsArrived
from hydrophone.streams.outputs import Output, OutputTopics
from hydrophone.streams.row_verdicts import LABEL_LIMIT, label, row_verdict

__all__ = ["Arrival", "JudgedFrames", "Listing", "SampleJudge", "listed"]

log = logging.getLogger("hydrophone")

Listing = Literal["all", "suspicious", "none"]
"""Which rows are told: every one, those that are not accepted, or none."""

MOST_BYTES: Final = 700_000
"""Of the rows of one record, as JSON; frames with more are told in parts."""

ROW_OVERHEAD: Final = 2 * 6 * LABEL_LIMIT
"""Bytes that two labels of escaped characters may take."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Some rows of one record, to be judged against one reference."""

    frame: Frame
    rows: int
    reference: Reference
    place: RecordPlace
    frame_id: str
    indices: NDArray[np.intp] | None
    timestamp_ms: int


@dataclass(slots=True)
class JudgedFrames:
    """Records to produce, in the order of the log; how many rows were decided how, by (model, decision); when their
    frames had come to the broker; and the seconds it took."""

    outputs: list[Output] = field(default_factory=list)
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    timestamps_ms: list[int] = field(default_factory=list)
    seconds: float = 0.0


class SampleJudge:
    """Asks a reference's per-sample detectors about rows that arrived. What it says of a row depends on the row and the
    reference alone, up to the rounding of a batch."""

    def __init__(self, catalog: ReferenceCatalog, topics: OutputTopics, *, listing: Listing) -> None:
        self._catalog, self._topics, self._listing = catalog, topics, listing

    def arrival(self, arrived: RowsArrived) -> Arrival:
        """What is to be asked; quick, for the loop."""
        record, frame = arrived.record, arrived.frame
        reference = self._catalog.in_force(frame.model, arrived.start_ms)
        assert reference is not None, "rows are judged where the contract says that there is a judge"
        picked = frame if arrived.rows is None else frame.take(arrived.rows)
        place = RecordPlace(topic=record.topic, partition=record.partition, offset=record.offset)
        return Arrival(
            picked,
            len(picked),
            reference,
            place,
            frame.frame_id,
            arrived.rows,
            record.timestamp_ms,
        )

    def judge(self, arrivals: Sequence[Arrival]) -> JudgedFrames:
        """All of them, in batches of those that go together. Never raises for what a row holds."""
        groups: dict[Hashable, list[int]] = {}
        for number, arrival in enumerate(arrivals):
            groups.setdefault((arrival.reference.id.sha256, layout(arrival.frame)), []).append(number)
        found: dict[int, _Answer] = {}
        for numbers in groups.values():
            found.update(zip(numbers, _answers([arrivals[number] for number in numbers]), strict=True))
        judged = JudgedFrames()
        for number, arrival in enumerate(arrivals):
            self._tell(judged, arrival, found[number])
        return judged

    def _tell(self, judged: JudgedFrames, arrival: Arrival, answer: "_Answer") -> None:
        decisions = answer.decisions(arrival.rows)
        counts = np.bincount(decisions, minlength=len(DECISIONS)).tolist()
        for name, rows in zip(DECISIONS, counts, strict=True):
            judged.decisions[arrival.frame.model, name] += rows
        judged.timestamps_ms.append(arrival.timestamp_ms)
        told = listed(decisions, self._listing)
        if told:
            said = Judged(rows=arrival.rows, **dict(zip(DECISIONS, counts, strict=True)))
            events = _events(arrival, said, [answer.verdict(arrival, within) for within in told])
            judged.outputs += [self._topics.verdicts(event, arrival.timestamp_ms) for event in events]


@dataclass(frozen=True, slots=True)
class _Answer:
    """Where an arrival's rows begin in what the detectors said of a batch; without that, why they said nothing."""

    verdicts: SampleVerdicts | None
    start: int = 0
    reason: str = ""

    def decisions(self, rows: int) -> NDArray[np.int8]:
        if self.verdicts is None:
            return np.full(rows, DECISIONS.index("abstain"), np.int8)
        return self.verdicts.decision[self.start : self.start + rows]

    def verdict(self, arrival: Arrival, within: int) -> Verdict:
        """Of one row, by its number within the arrival."""
        frame = arrival.frame
        row = within if arrival.indices is None else int(arrival.indices[within])
        sample = label(frame.sample_ids[within] if frame.sample_ids else None)
        client = label(frame.client_ids[within] if frame.client_ids else None)
        if self.verdicts is not None:
            return row_verdict(self.verdicts, self.start + within, row, sample, client)
        return Verdict(
            row=row,
            decision="abstain",
            suspicion=None,
            p_value=None,
            scores={},
            reasons=(self.reason,),
            sample_id=sample,
            client_id=client,
        )


def _answers(group: Sequence[Arrival]) -> Iterator[_Answer]:
    """What the detectors of one reference say of rows that fit together. What they raise costs the verdicts, not the
    partition: a record that made every worker fail in turn would stop its whole model."""
    reference = group[0].reference
    samples = reference.samples
    assert samples is not None, "the contract says that there are detectors"
    try:
        verdicts = samples.judge(concat([arrival.frame for arrival in group]))
    except Exception as error:
        log.exception("rows could not be judged", extra={"model": reference.manifest.model})
        yield from (_Answer(None, reason=f"failed:{type(error).__name__}") for _ in group)
        return
    start = 0
    for arrival in group:
        yield _Answer(verdicts, start)
        start += arrival.rows


def listed(decisions: NDArray[np.int8], listing: Listing) -> list[int]:
    """The rows that are told of."""
    if listing == "all":
        return list(range(len(decisions)))
    return np.flatnonzero(decisions != ACCEPT).tolist() if listing == "suspicious" else []


def _events(arrival: Arrival, judged: Judged, verdicts: Sequence[Verdict]) -> Iterator[FrameVerdicts]:
    reference, parts = arrival.reference.id, list(_parts(verdicts))
    for number, part in enumerate(parts):
        yield FrameVerdicts(
            id=verdict_id(arrival.place, reference, number),
            model=arrival.frame.model,
            frame_id=uuid.UUID(arrival.frame_id),
            source=arrival.place,
            reference=reference,
            judged=judged,
            part=number,
            parts=len(parts),
            verdicts=tuple(part),
        )


def _parts(verdicts: Sequence[Verdict]) -> Iterator[Sequence[Verdict]]:
    """As few as fit: rows of one frame have equally many scores, so the first tells how large they are."""
    size = len(verdicts[0].model_dump_json()) + ROW_OVERHEAD
    step = max(1, MOST_BYTES // size)
    for start in range(0, len(verdicts), step):
        yield verdicts[start : start + step]
