"""Reads the header of a safetensors byte string and checks every claim in it against the bytes at hand.

The safetensors library has no call that gives the metadata of bytes in memory and views instead of copies; the hot
path needs both. Writing is left to the library, all but the metadata. What the tensors mean does not live here.

Source: the safetensors format description (8-byte little-endian header length, JSON header, contiguous data).
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from hydrophone.schemas.errors import FrameInvalid

__all__ = [
    "MAX_HEADER_BYTES",
    "HeaderParts",
    "TensorClaim",
    "read_header",
    "read_metadata",
    "read_table",
    "split_header",
    "with_metadata",
]

METADATA: Final = "__metadata__"
_OPENING: Final = b'{"__metadata__":'
_SEAM: Final = b'"},"'
"""The last metadata value ends, the metadata end, a tensor's name begins. Rare inside a value: quotes are escaped."""

MAX_HEADER_BYTES: Final = 8 * 1024 * 1024
MAX_TENSORS: Final = 1_024
MAX_ELEMENTS: Final = 1 << 40
MAX_BYTES: Final = 1 << 48

ITEM_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


class TensorClaim(NamedTuple):
    """One tensor as the header describes it; `start` counts from the first byte of the whole string."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class HeaderParts(NamedTuple):
    """A header cut in two. A guess until both parts have been read: `read_metadata`, `read_table`."""

    metadata: bytes
    table: bytes
    body_start: int


def read_header(data: bytes) -> tuple[dict[str, str], dict[str, TensorClaim]]:
    """Metadata and tensor claims, all consistent with `len(data)`. Raises `FrameInvalid`."""
    body_start = _body_start(data)
    header = _parse(data[8:body_start])
    metadata = _metadata(header.pop(METADATA, {}))
    return metadata, _claims(header, body_start, len(data))


def split_header(data: bytes) -> HeaderParts | None:
    """The header in the two parts that `with_metadata` writes; None for one that is ordered in another way. Raises
    `FrameInvalid` where there is no header.

    A publisher's tensor table is the same bytes in every frame, and need not be read twice. Where JSON is cut at the
    end of a member's value and both sides are JSON of their own, the whole says what the two sides say.
    """
    body_start = _body_start(data)
    cut = data.find(_SEAM, 8, body_start)
    if cut < 0 or not data.startswith(_OPENING, 8):
        return None
    metadata = data[8 + len(_OPENING) : cut + 2]
    return HeaderParts(metadata, data[cut + 3 : body_start].rstrip(b" "), body_start)


def read_metadata(text: bytes) -> dict[str, str]:
    """The metadata part of a header. Raises `FrameInvalid`."""
    return _metadata(_parse(text))


def read_table(text: bytes, size: int) -> dict[str, TensorClaim]:
    """The claims in the other part, consistent with a body of `size` bytes, counting from its start. Raises
    `FrameInvalid`, also where metadata hide in it.
    """
    table = _parse(b"{" + text)
    if METADATA in table:
        raise FrameInvalid("bad_metadata", "a header has one `__metadata__`; got two")
    return _claims(table, 0, size)


def with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """`data`, which the library wrote without metadata, with it. The library's own order changes from call to call."""
    end = 8 + int.from_bytes(data[:8], "little")
    tensors = data[9:end].rstrip(b" ")
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    header = _OPENING + text + (b"" if tensors == b"}" else b",") + tensors
    header += b" " * (-len(header) % 8)
    return b"".join((len(header).to_bytes(8, "little"), header, data[end:]))


def _body_start(data: bytes) -> int:
    if len(data) < 8:
        raise FrameInvalid("truncated", f"a frame begins with an 8-byte header length; got {len(data)} bytes")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise FrameInvalid(
            "bad_header_length", f"the header claims {length} bytes; {len(data) - 8} follow, {MAX_HEADER_BYTES} allowed"
        )
    return 8 + length


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = from_json(text)
    except ValueError as error:
        raise FrameInvalid("bad_header", f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise FrameInvalid("bad_header", f"the header must be a JSON object; got {type(header).__name__}")
    return header


def _claims(table: Mapping[str, Any], body_start: int, end: int) -> dict[str, TensorClaim]:
    if len(table) > MAX_TENSORS:
        raise FrameInvalid("too_many_tensors", f"at most {MAX_TENSORS} tensors; got {len(table)}")
    spans = [_span(name, entry) for name, entry in table.items()]
    _check_layout(spans, end - body_start)
    return {name: TensorClaim(dtype, shape, body_start + begin) for name, dtype, shape, begin, _ in spans}


def _metadata(metadata: object) -> dict[str, str]:
    if isinstance(metadata, dict) and set(map(type, metadata.values())) <= {str}:
        return metadata
    raise FrameInvalid("bad_metadata", "`__metadata__` must map strings to strings")


def _span(name: str, entry: object) -> tuple[str, str, tuple[int, ...], int, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]  # type: ignore[index]
        if type(shape) is not list:
            raise TypeError(shape)
        elements = 1
        for size in shape:
            if type(size) is not int or size < 0:
                raise FrameInvalid("bad_shape", f"`{name}` must have whole, non-negative sizes; got {size!r:.40}")
            elements = min(elements * size, MAX_ELEMENTS)
    except (KeyError, TypeError, ValueError):
        raise FrameInvalid("bad_tensor", f"`{name:.80}` must give dtype, shape and two data_offsets") from None
    # Bounded before any arithmetic is printed: Python refuses to spell out a number of more than 4300 digits.
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end < MAX_BYTES:
        raise FrameInvalid("bad_offsets", f"`{name:.80}` must have whole offsets, 0 <= begin <= end")
    width = ITEM_BYTES.get(dtype) if type(dtype) is str else None
    if width is None:
        raise FrameInvalid("unknown_dtype", f"`{name:.80}` has dtype {dtype!r:.40}, which safetensors does not define")
    if end - begin != elements * width:
        raise FrameInvalid("bad_size", f"`{name:.80}` claims shape {shape!r:.80} and {end - begin} bytes of {dtype}")
    return name, dtype, tuple(shape), begin, end


def _check_layout(spans: list[tuple[str, str, tuple[int, ...], int, int]], size: int) -> None:
    """Tensors must tile the data exactly: a hole could hide bytes, an overlap could alias them."""
    position = 0
    for name, _, _, begin, end in sorted(spans, key=lambda span: (span[3], span[4])):
        if begin != position:
            raise FrameInvalid(
                "bad_offsets", f"`{name:.80}` begins at {begin}; the tensor before it ends at {position}"
            )
        position = end
    if position != size:
        raise FrameInvalid("truncated", f"the tensors claim {position} bytes; the frame holds {size}")
