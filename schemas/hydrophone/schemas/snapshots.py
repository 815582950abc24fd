"""What stands on `snapshots`: an open window as it was at an offset, so that a restart reads the log on from there.

A window is a head, JSON, beside records of frame ids (16 bytes each) and of sampled rows (frame files with origins).
Keys name model, window and kind; how they are put together is in `streams/snapshots.py`.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from hydrophone.schemas.event import Value, WindowBounds

__all__ = ["ContractSnapshot", "WindowSnapshot"]


class ContractSnapshot(Value):
    """What the window's reference needs of every frame, fixed when the window opened."""

    sizes: Mapping[str, int]
    needs_classes: bool
    output_classes: int | None


class WindowSnapshot(Value):
    """The head of a snapshot: all records of the window before `covered_until` are in it."""

    event_type: ClassVar[str] = "org.hydrophone.snapshot.v1"

    model: str
    window: WindowBounds
    first_offset: int = Field(ge=0)
    covered_until: int = Field(ge=0)
    k: int = Field(ge=1)
    sampling_key_id: str
    contract: ContractSnapshot | None
    seen: int = Field(ge=0)
    rejected: int = Field(ge=0)
    duplicate: int = Field(ge=0)
    ignored_tensors: int = Field(ge=0)
    traceparents: tuple[str, ...] = ()
    frames: int = Field(ge=0, description="frame ids in all records of ids")
    id_records: int = Field(ge=0)
    rows: int = Field(ge=0, description="sampled rows in all records of rows")
    row_records: int = Field(ge=0)
