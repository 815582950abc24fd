"""A layout is known by its table and its body's size, and nothing a record says can bring it another one's."""

import numpy as np
import pytest
from tests.support.frames import MODEL, T0, frame_id, gaussian_frame, raw_frame

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame, decode
from hydrophone.schemas.layout import LONGEST_SHARED_TABLE, SHARED_LAYOUTS, shared_layout
from hydrophone.schemas.safetensors_header import read_header, read_metadata, split_header

TIMES = '"event_time_ms":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}'
LAYER = '"layer.fc":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}'
BODY = np.array([T0]).tobytes() + np.array([1, 2], np.float32).tobytes()


def record(table: str, body: bytes = BODY, **metadata: str) -> bytes:
    pairs = {"frame_id": frame_id(0), "kind": "data", "model": MODEL, "schema": "1"} | metadata
    text = ",".join(f'"{name}":"{value}"' for name, value in pairs.items())
    return raw_frame(f'{{"__metadata__":{{{text}}},{table}}}'.encode(), body)


def reason_of(data: bytes) -> str:
    with pytest.raises(FrameInvalid) as caught:
        decode(data)
    return caught.value.reason


def test_frames_of_one_make_share_a_layout() -> None:
    shared_layout.cache_clear()
    first, second = (gaussian_frame(3, seed, sample_ids=["x" * seed] * 3) for seed in (1, 9))
    for frame in (first, second):
        again = decode(frame.encode())
        assert isinstance(again, Frame)
        for name, values in frame.layers.items():
            np.testing.assert_array_equal(again.layers[name], values)
        assert again.sample_ids == frame.sample_ids
    assert shared_layout.cache_info()[:2] == (1, 1)


def test_a_known_table_is_not_believed_of_a_body_of_another_size() -> None:
    table = f"{TIMES},{LAYER}"
    assert isinstance(decode(record(table)), Frame)
    assert reason_of(record(table, BODY[:-1])) == "truncated"
    assert reason_of(record(table, BODY + b"x")) == "truncated"


@pytest.mark.parametrize("key", ["__metadata__", r"\u005f_metadata__"])
def test_metadata_after_the_tensors_count_as_the_parser_says(key: str) -> None:
    # Of two members with one name the last counts: here the frame is of `other`.
    second = f'"{key}":{{"frame_id":"{frame_id(1)}","kind":"data","model":"other","schema":"1"}}'
    frame = decode(record(f"{TIMES},{LAYER},{second}"))
    assert isinstance(frame, Frame)
    assert (frame.model, frame.frame_id) == ("other", frame_id(1))


def test_metadata_that_pass_for_a_tensor_are_metadata() -> None:
    second = '"__metadata__":{"dtype":"F32","shape":[0],"data_offsets":[16,16]}'
    assert reason_of(record(f"{TIMES},{LAYER},{second}")) == "bad_metadata"


def test_a_value_that_looks_like_the_end_of_the_metadata_ends_nothing() -> None:
    # The parser sees one long text; who cuts at the first `"},"` sees a tensor table.
    inside = r"x\"},\"layer.fc\":{\"dtype\":\"F32\"}"
    frame = decode(record(f"{TIMES},{LAYER}", note=inside))
    assert isinstance(frame, Frame)
    assert frame.layers["fc"].tolist() == [[1, 2]]
    closing = decode(record(f"{TIMES},{LAYER}", note=r"x\"},"))
    assert isinstance(closing, Frame)
    assert closing.layers["fc"].tolist() == [[1, 2]]


def test_both_parts_of_a_header_say_what_the_whole_says() -> None:
    data = record(f"{TIMES},{LAYER}")
    parts = split_header(data)
    assert parts is not None
    metadata, _ = read_header(data)
    assert read_metadata(parts.metadata) == metadata


def test_refusals_are_not_remembered_and_layouts_only_so_many() -> None:
    shared_layout.cache_clear()
    assert reason_of(record(LAYER)) == "bad_offsets"
    assert reason_of(record(f"{TIMES},{LAYER}".replace("F32", "U8"))) == "bad_size"
    assert shared_layout.cache_info().currsize == 0
    for number in range(SHARED_LAYOUTS + 5):
        decode(record(f"{TIMES},{LAYER}".replace("fc", f"fc{number}")))
    assert shared_layout.cache_info().currsize == SHARED_LAYOUTS


def test_a_table_too_long_to_be_remembered_is_read_all_the_same() -> None:
    shared_layout.cache_clear()
    frame = decode(record(f"{TIMES},{LAYER}".replace("fc", "f" * LONGEST_SHARED_TABLE)))
    assert isinstance(frame, Frame)
    assert shared_layout.cache_info().currsize == 0
