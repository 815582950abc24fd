"""Events about running: dead letters, operational facts, announcements of references and shards, what outlives a
window."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hydrophone.schemas.event import Event, Sha256, Value, event_id

__all__ = ["DeadLetter", "ModelState", "OperationalEvent", "ReferencePointer", "ShardPlan", "operational_event"]


OperationalKind = Literal[
    "log_gap", "model_on_two_partitions", "reference_unloadable", "snapshot_lost", "unplanned_shard"
]


class DeadLetter(Value):
    """Headers beside the original bytes of a record that could not be used. Every value travels as text."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    version: str = Field(description="of the program that refused the record")


class OperationalEvent(Event):
    """Something an operator must know that is no finding: a gap in the log, a model on two partitions, ..."""

    event_type: ClassVar[str] = "org.hydrophone.event.v1"

    kind: OperationalKind
    topic: str
    partition: int
    detail: str
    model: str | None = None
    first_offset: int | None = None
    last_offset: int | None = None


class ReferencePointer(Value):
    """Which reference a model is tested against from an event time on; key `model@version`, compacted."""

    event_type: ClassVar[str] = "org.hydrophone.reference.v1"

    model: str
    version: str
    uri: str = Field(description="a folder, by any scheme fsspec knows: file, s3, gs, ...")
    sha256: Sha256
    effective_from_ms: int

    @property
    def key(self) -> str:
        return f"{self.model}@{self.version}"


class ShardPlan(Value):
    """Over how many keys `model#shard` publishers spread a model from an event time on; on `control`, never withdrawn.

    From its first plan on a model's windows are merged from what each partition has of them, however many shards.
    """

    event_type: ClassVar[str] = "org.hydrophone.shards.v1"

    model: str
    shards: int = Field(ge=1, le=1_024)
    effective_from_ms: int = Field(ge=0, description="a window's start")

    @property
    def key(self) -> str:
        return f"shards/{self.model}@{self.effective_from_ms}"


class ModelState(Value):
    """What must outlive a window, per model; key `model`, compacted, co-partitioned with `activations`."""

    event_type: ClassVar[str] = "org.hydrophone.state.v1"

    model: str
    reference_sha256: Sha256
    last_end_ms: int
    recent_p_values: tuple[float, ...] = Field((), description="of the last tested windows, oldest first")
    sequential: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(
        (), description="evidence over time, one number for each shift listened for; 0 after it rang"
    )


def operational_event(
    kind: OperationalKind,
    topic: str,
    partition: int,
    detail: str,
    *,
    model: str | None = None,
    first_offset: int | None = None,
    last_offset: int | None = None,
) -> OperationalEvent:
    """An event whose id names the fact, so that telling it twice is telling it once."""
    identity = event_id("event", kind, topic, partition, model, first_offset, last_offset)
    return OperationalEvent(
        id=identity,
        kind=kind,
        topic=topic,
        partition=partition,
        detail=detail,
        model=model,
        first_offset=first_offset,
        last_offset=last_offset,
    )
