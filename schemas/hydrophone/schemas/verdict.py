"""`FrameVerdicts`: what the per-sample detectors said of the rows of one frame, before any window closed.

A verdict is of one row by itself, against clean rows; a score (`score.py`) is of a window. Who asks and when lives in
`streams/`.
"""

import uuid
from typing import ClassVar

from pydantic import Field

from hydrophone.schemas.event import Event, Probability, Value, event_id
from hydrophone.schemas.score import Attack, Decision, ReferenceId

__all__ = ["DECISIONS", "Decision", "FrameVerdicts", "Judged", "RecordPlace", "Verdict", "verdict_id"]

DECISIONS: tuple[Decision, ...] = ("accept", "abstain", "reject")


class RecordPlace(Value):
    """The record a frame came in."""

    topic: str
    partition: int
    offset: int


class Judged(Value):
    """How many rows were judged, and how."""

    rows: int
    accept: int
    abstain: int
    reject: int


class Verdict(Value):
    """One row. `p_value` is conformal: the rank of `suspicion` among clean rows that nothing was fitted on."""

    row: int
    decision: Decision
    suspicion: float | None = Field(description="higher is more suspicious; null where nothing could be measured")
    p_value: Probability | None
    scores: dict[str, float] = Field(description="each measure that could be had, by name")
    attack: Attack | None = Field(
        None, description="of a row that is not accepted: what it looks like, if it can be told"
    )
    reasons: tuple[str, ...] = Field((), description="what could not be judged and why, as stable codes")
    sample_id: str | None = None
    client_id: str | None = None


class FrameVerdicts(Event):
    """Verdicts of one frame, or of one part of it where they would not fit into a record.

    `judged` counts the whole frame, whatever `verdicts` lists: all rows, or those alone that were not accepted.
    """

    event_type: ClassVar[str] = "org.hydrophone.verdict.v1"

    model: str
    frame_id: uuid.UUID
    source: RecordPlace
    reference: ReferenceId
    judged: Judged
    part: int = Field(0, ge=0)
    parts: int = Field(1, ge=1)
    verdicts: tuple[Verdict, ...]


def verdict_id(source: RecordPlace, reference: ReferenceId, part: int = 0) -> uuid.UUID:
    """The same record and reference give the same id, so that telling it twice is telling it once."""
    return event_id("verdict", source.topic, source.partition, source.offset, reference.sha256, part)
