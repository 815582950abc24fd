"""Summaries of sharded windows as records on `partials`, and back. Pure; when they are merged is in `merging.py`."""

from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from hydrophone.schemas.errors import FrameInvalid, RecordRejected
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Frame, concat
from hydrophone.schemas.partials import SummaryChunk, WatermarkMarker
from hydrophone.schemas.score import SourcePart
from hydrophone.streams.batching import split
from hydrophone.streams.effects import TimePassed, WindowClosed
from hydrophone.streams.record import Record
from hydrophone.streams.topics import RECORD_BYTES

__all__ = ["Chunk", "check_rows", "encode_marker", "encode_summary", "read_partial", "summary_of"]

CHUNK_BYTES: Final = RECORD_BYTES + 16_384
"""Of one record. A row that `check_rows` let pass, with what names its origin, fits into it."""

MOST_ROW_BYTES: Final = RECORD_BYTES - 65_536
LABEL_GROWTH: Final = 12
"""A label's character takes at most so many bytes: `\\ud83d\\ude00` in JSON."""

HEADER: Final = "summary"

Wire = tuple[bytes | None, bytes, list[tuple[str, bytes | None]]]
"""Key, value and headers."""


class Chunk:
    """One record of a summary: what it says, and its rows, if any."""

    __slots__ = ("rows", "said")

    def __init__(self, said: SummaryChunk, rows: Frame | None) -> None:
        self.said, self.rows = said, rows


def check_rows(frame: Frame) -> None:
    """Raise `FrameInvalid` (`row_too_large`) where a row would not fit into a summary: a record that was compressed, or
    held bfloat16, is larger once read."""
    arrays = [*frame.layers.values(), *([] if frame.output is None else [frame.output])]
    labels = [part for part in (frame.sample_ids, frame.client_ids, frame.attack) if part is not None]
    longest = sum(max((len(label or "") for label in part), default=0) for part in labels)
    size = sum(4 * array.shape[1] for array in arrays) + LABEL_GROWTH * longest
    if size > MOST_ROW_BYTES:
        raise FrameInvalid(
            "row_too_large", f"a row of a sharded model takes at most {MOST_ROW_BYTES} bytes as float32; got {size}"
        )


def encode_summary(summary: WindowClosed, chunk_bytes: int = CHUNK_BYTES) -> list[Wire]:
    """One record a chunk, all of the same key. The rows keep their origins, so that a merge finds their priorities."""
    pieces = [b""] if summary.sample is None else [_data(p.data) for p in split(summary.sample, chunk_bytes)]
    said = [
        SummaryChunk(
            model=summary.model,
            window=WindowBounds(start_ms=summary.start_ms, end_ms=summary.end_ms),
            part=SourcePart(
                partition=summary.partition, first_offset=summary.first_offset, close_offset=summary.close_offset
            ),
            counts=summary.counts,
            traceparents=summary.traceparents,
            chunk=number,
            chunks=len(pieces),
        )
        for number in range(len(pieces))
    ]
    return [
        (summary.model.encode(), data, _headers(SummaryChunk.event_type, (HEADER, one.model_dump_json().encode())))
        for one, data in zip(said, pieces, strict=True)
    ]


def _data(data: bytes | None) -> bytes:
    assert data is not None, "rows were checked when they came"
    return data


def _headers(kind: str, *more: tuple[str, bytes]) -> list[tuple[str, bytes | None]]:
    return [("ce_type", kind.encode()), *more]


def encode_marker(passed: TimePassed, partitions: int) -> Wire:
    marker = WatermarkMarker(partition=passed.partition, partitions=partitions, watermark_ms=passed.watermark_ms)
    return None, marker.model_dump_json().encode(), _headers(WatermarkMarker.event_type)


def read_partial(record: Record) -> Chunk | WatermarkMarker:
    """What a record of `partials` says. Raises `RecordRejected` and nothing else, whatever the bytes."""
    headers = dict(record.headers)
    kind = (headers.get("ce_type") or b"").decode(errors="replace")
    try:
        if kind == WatermarkMarker.event_type:
            return WatermarkMarker.model_validate_json(record.value or b"")
        if kind == SummaryChunk.event_type:
            said = SummaryChunk.model_validate_json(headers.get(HEADER) or b"")
            return _checked(Chunk(said, Frame.decode(record.value) if record.value else None))
    except ValidationError as error:
        raise RecordRejected("bad_partial", f"not a `{kind}`: {error}") from None
    raise RecordRejected("bad_partial", f"`partials` carries summaries and watermarks; got {kind!r:.80}")


def _checked(chunk: Chunk) -> Chunk:
    said, rows = chunk.said, chunk.rows
    if said.chunk >= said.chunks:
        raise RecordRejected("bad_partial", f"`chunk` must be below `chunks`, {said.chunks}; got {said.chunk}")
    if rows is not None and (rows.model != said.model or rows.origins is None):
        raise RecordRejected("bad_partial", f"rows of `{said.model}` with their origins make a summary; got others")
    return chunk


def summary_of(chunks: Sequence[Chunk]) -> WindowClosed:
    """The summary again, of all its chunks in order. Raises `RecordRejected` where they do not fit together."""
    said = chunks[0].said
    frames = [chunk.rows for chunk in chunks if chunk.rows is not None]
    try:
        sample = concat(frames) if frames else None
    except FrameInvalid as error:
        raise RecordRejected("bad_partial", f"the chunks of a summary do not fit together: {error}") from None
    part = said.part
    return WindowClosed(
        said.model,
        said.window.start_ms,
        said.window.end_ms,
        part.partition,
        part.first_offset,
        part.close_offset,
        said.counts,
        sample,
        said.traceparents,
    )
