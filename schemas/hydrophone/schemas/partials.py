"""What travels on `partials`: what one partition has of a sharded model's window, and how far each partition's time is.

A summary is one or more records (chunks) of the same key, the model: the value is a frame file with some of the sampled
rows, or empty where nothing is kept; the header `summary` is a `SummaryChunk`. A marker has no key; its value is JSON.
"""

from typing import ClassVar

from pydantic import Field

from hydrophone.schemas.event import Value, WindowBounds
from hydrophone.schemas.score import Counts, SourcePart

__all__ = ["SummaryChunk", "WatermarkMarker"]


class SummaryChunk(Value):
    """One record of a summary. All chunks of a summary say the same, but for `chunk`."""

    event_type: ClassVar[str] = "org.hydrophone.summary.v1"

    model: str
    window: WindowBounds
    part: SourcePart
    counts: Counts
    traceparents: tuple[str, ...] = ()
    chunk: int = Field(ge=0)
    chunks: int = Field(ge=1, le=10_000)


class WatermarkMarker(Value):
    """Every summary of a window that ends at or before `watermark_ms` has come from this partition before this record.

    Written to each partition of `partials`, whether or not the partition has ever held a sharded model.
    """

    event_type: ClassVar[str] = "org.hydrophone.watermark.v1"

    partition: int = Field(ge=0)
    partitions: int = Field(ge=1, description="of `activations`: markers of so many are waited for")
    watermark_ms: int
