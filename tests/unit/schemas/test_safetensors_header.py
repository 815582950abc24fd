"""The header reader believes nothing that the bytes at hand do not bear out."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from tests.support.frames import raw_frame

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.safetensors_header import MAX_HEADER_BYTES, MAX_TENSORS, read_header

FOUR = np.zeros(1, np.float32).tobytes()


def tensor(shape: Any = (1,), offsets: Any = (0, 4), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def huge(entry: str) -> bytes:
    """A header whose numbers are too long for `json.dumps` to be asked."""
    return raw_frame(('{"x":{"dtype":"F32",' + entry + "}}").encode(), FOUR)


NINES = "9" * 4300
MALFORMED: dict[str, tuple[str, bytes]] = {
    "nothing": ("truncated", b""),
    "seven bytes": ("truncated", bytes(7)),
    "length without a header": ("bad_header_length", (1).to_bytes(8, "little")),
    "length of 2^63": ("bad_header_length", raw_frame({}, length=2**63)),
    "length of 2^64 - 1": ("bad_header_length", raw_frame({}, length=2**64 - 1)),
    "header over the limit": ("bad_header_length", raw_frame(b" " * (MAX_HEADER_BYTES + 1))),
    "length that cuts the header": ("bad_header", raw_frame({"x": tensor()}, FOUR, length=5)),
    "length that runs into the data": ("bad_header", raw_frame(b"{}", FOUR, length=3)),
    "empty header": ("bad_header", raw_frame(b"")),
    "not JSON": ("bad_header", raw_frame(b"{'x': 1}")),
    "not UTF-8": ("bad_header", raw_frame(b'{"\xff": 1}')),
    "half a character": ("bad_header", raw_frame(b'{"__metadata__": {"a": "\\ud800"}}')),
    "a list": ("bad_header", raw_frame([])),
    "a number": ("bad_header", raw_frame(b"1")),
    "null": ("bad_header", raw_frame(b"null")),
    "deeply nested": ("bad_header", raw_frame(b"[" * 1_000_000)),
    "deeply nested in a shape": ("bad_header", raw_frame(b'{"x":{"shape":' + b"[" * 500_000)),
    "number of 5000 digits": ("bad_header", huge('"shape":[' + "9" * 5000 + '],"data_offsets":[0,4]')),
    "metadata that is a list": ("bad_metadata", raw_frame({"__metadata__": []})),
    "metadata that is null": ("bad_metadata", raw_frame({"__metadata__": None})),
    "metadata with a number": ("bad_metadata", raw_frame({"__metadata__": {"a": 1}})),
    "metadata with a null": ("bad_metadata", raw_frame({"__metadata__": {"a": None}})),
    "metadata with a mapping": ("bad_metadata", raw_frame({"__metadata__": {"a": {}}})),
    "too many tensors": ("too_many_tensors", raw_frame({str(i): tensor() for i in range(MAX_TENSORS + 1)})),
    "tensor that is null": ("bad_tensor", raw_frame({"x": None}, FOUR)),
    "tensor that is a string": ("bad_tensor", raw_frame({"x": "F32"}, FOUR)),
    "tensor without dtype": ("bad_tensor", raw_frame({"x": {"shape": [1], "data_offsets": [0, 4]}}, FOUR)),
    "tensor without shape": ("bad_tensor", raw_frame({"x": {"dtype": "F32", "data_offsets": [0, 4]}}, FOUR)),
    "tensor without offsets": ("bad_tensor", raw_frame({"x": {"dtype": "F32", "shape": [1]}}, FOUR)),
    "three offsets": ("bad_tensor", raw_frame({"x": tensor(offsets=[0, 4, 8])}, FOUR)),
    "offsets that are a number": ("bad_tensor", raw_frame({"x": tensor(offsets=4)}, FOUR)),
    "shape that is a string": ("bad_tensor", raw_frame({"x": tensor(shape="1")}, FOUR)),
    "shape that is empty text": ("bad_tensor", raw_frame({"x": tensor(shape="")}, FOUR)),
    "shape that is a mapping": ("bad_tensor", raw_frame({"x": tensor(shape={})}, FOUR)),
    "shape that is a number": ("bad_tensor", raw_frame({"x": tensor(shape=1)}, FOUR)),
    "negative size": ("bad_shape", raw_frame({"x": tensor(shape=[-1])}, FOUR)),
    "two negative sizes": ("bad_shape", raw_frame({"x": tensor(shape=[-1, -1])}, FOUR)),
    "size in floats": ("bad_shape", raw_frame({"x": tensor(shape=[1.0])}, FOUR)),
    "size that is true": ("bad_shape", raw_frame({"x": tensor(shape=[True])}, FOUR)),
    "size that is NaN": ("bad_shape", huge('"shape":[NaN],"data_offsets":[0,4]')),
    "offsets that are letters": ("bad_offsets", raw_frame({"x": tensor(offsets="ab")}, FOUR)),
    "offsets in floats": ("bad_offsets", raw_frame({"x": tensor(offsets=[0.0, 4.0])}, FOUR)),
    "negative offset": ("bad_offsets", raw_frame({"x": tensor(offsets=[-4, 0])}, FOUR)),
    "offsets backwards": ("bad_offsets", raw_frame({"x": tensor(offsets=[4, 0])}, FOUR)),
    "offsets of 4300 digits": ("bad_offsets", huge(f'"shape":[1],"data_offsets":[{NINES},-{NINES}]')),
    "size of 4300 digits": ("bad_size", huge(f'"shape":[{NINES},{NINES}],"data_offsets":[0,4]')),
    "shape of 2^62": ("bad_size", raw_frame({"x": tensor(shape=[2**62])}, FOUR)),
    "shape whose product wraps to 1": ("bad_size", raw_frame({"x": tensor(shape=[2**32 + 1, 2**32 - 1])}, FOUR)),
    "shape whose bytes wrap to 4": ("bad_size", raw_frame({"x": tensor(shape=[2**62 + 1])}, FOUR)),
    "offsets that do not fit the shape": ("bad_size", raw_frame({"x": tensor(shape=[2])}, FOUR)),
    "dtype nobody defines": ("unknown_dtype", raw_frame({"x": tensor(dtype="F31")}, FOUR)),
    "dtype that is a list": ("unknown_dtype", raw_frame({"x": tensor(dtype=[])}, FOUR)),
    "dtype that is a long number": (
        "unknown_dtype",
        raw_frame(f'{{"x":{{"dtype":{NINES},"shape":[1],"data_offsets":[0,4]}}}}'.encode(), FOUR),
    ),
    "hole before the data": ("bad_offsets", raw_frame({"x": tensor(offsets=[4, 8])}, FOUR * 2)),
    "hole between tensors": ("bad_offsets", raw_frame({"x": tensor(), "y": tensor(offsets=[8, 12])}, FOUR * 3)),
    "overlapping tensors": ("bad_offsets", raw_frame({"x": tensor(), "y": tensor()}, FOUR)),
    "bytes after the data": ("truncated", raw_frame({"x": tensor()}, FOUR + b"x")),
    "bytes missing": ("truncated", raw_frame({"x": tensor()}, FOUR[:3])),
    "an end past the data": ("truncated", raw_frame({"x": tensor(shape=[2**38], offsets=[0, 2**40])}, FOUR)),
}  # fmt: skip


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_header_is_refused_with_its_reason(fault: str) -> None:
    reason, data = MALFORMED[fault]
    with pytest.raises(FrameInvalid) as caught:
        read_header(data)
    assert caught.value.reason == reason
    assert len(caught.value.detail) <= 500


def test_what_the_library_writes_is_read_as_it_was_written() -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.arange(2),
        "empty": np.zeros((0, 3), np.float16),
    }
    data = save(tensors, {"k": "v"})
    metadata, claims = read_header(data)
    assert metadata == {"k": "v"}
    for name, values in tensors.items():
        claim = claims[name]
        assert claim.shape == values.shape
        assert data[claim.start : claim.start + values.nbytes] == values.tobytes()


def test_of_two_entries_with_one_name_the_last_counts_and_still_has_to_fit() -> None:
    text = (
        b'{"x":{"dtype":"F32","shape":[9],"data_offsets":[0,36]},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    )
    _, claims = read_header(raw_frame(text, FOUR))
    assert claims["x"].shape == (1,)
    with pytest.raises(FrameInvalid):
        read_header(raw_frame(text, FOUR * 9))


def test_a_claim_of_a_terabyte_costs_no_memory() -> None:
    data = raw_frame({"x": tensor(shape=[2**38], offsets=[0, 2**40])}, FOUR)
    tracemalloc.start()
    with pytest.raises(FrameInvalid):
        read_header(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
