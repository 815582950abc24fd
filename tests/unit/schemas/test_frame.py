"""The frame codec: what goes in comes out, and whatever is wrong is named by a stable reason."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from tests.support.frames import MODEL, T0, frame_id, gaussian_frame, plain_frame, raw_frame

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame, Heartbeat, concat, decode
from hydrophone.schemas.origins import MAX_ROWS, Origin

ID = frame_id("frame")


def full_frame(rows: int = 3) -> Frame:
    rng = np.random.default_rng(0)
    return Frame(
        MODEL,
        {
            "conv": rng.standard_normal((rows, 4)).astype(np.float32),
            "fc": rng.standard_normal((rows, 2)).astype(np.float16),
        },
        event_time_ms=T0 + np.arange(rows),
        frame_id=ID,
        sample_ids=[f"sämple {i}" for i in range(rows)],
        client_ids=[None, "a", "b"][:rows],
        output=rng.dirichlet(np.ones(5), rows).astype(np.float32),
        predicted=np.arange(rows),
        uncertainty={"entropy": rng.random(rows)},
        label=np.zeros(rows, np.int64),
        attack=[None] * rows,
        origins=[Origin(frame_id("elsewhere"), i, 3, 2**40) for i in range(rows)],
    )


def decoded(data: bytes) -> Frame:
    frame = decode(data)
    assert isinstance(frame, Frame)
    return frame


def test_a_frame_with_everything_comes_back_as_it_was() -> None:
    frame = full_frame()
    again = decoded(frame.encode())
    for name in ("model", "frame_id", "sample_ids", "client_ids", "attack", "origins"):
        assert getattr(again, name) == getattr(frame, name), name
    for name in ("event_time_ms", "predicted", "label", "output"):
        np.testing.assert_array_equal(getattr(again, name), getattr(frame, name))
    assert again.layers.keys() == frame.layers.keys()
    for name, values in frame.layers.items():
        np.testing.assert_array_equal(again.layers[name], values)
        assert again.layers[name].dtype == values.dtype
    assert again.uncertainty is not None
    assert frame.uncertainty is not None
    np.testing.assert_array_equal(again.uncertainty["entropy"], frame.uncertainty["entropy"])


def test_equal_frames_give_equal_bytes() -> None:
    assert full_frame().encode() == full_frame().encode()
    assert decoded(full_frame().encode()).encode() == full_frame().encode()


def test_any_safetensors_reader_finds_the_tensors_by_their_contract_names() -> None:
    tensors = load(full_frame().encode())
    assert set(tensors) == {
        "layer.conv", "layer.fc", "output", "predicted", "event_time_ms", "uncertainty.entropy", "label",
    }  # fmt: skip


def test_decoded_arrays_are_views_that_cannot_be_written() -> None:
    data = full_frame().encode()
    array = decoded(data).layers["conv"]
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1.0


def test_bfloat16_is_read_as_the_upper_half_of_float32() -> None:
    values = np.array([[1.0, -2.5], [0.15625, 3.0e38]], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = base_header() | {"layer.fc": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [16, 24]}}
    frame = decoded(raw_frame(header, np.array([T0, T0]).tobytes() + upper.tobytes()))
    assert frame.layers["fc"].dtype == np.float32
    np.testing.assert_array_equal(frame.layers["fc"], (upper.astype(np.uint32) << 16).view(np.float32))
    np.testing.assert_array_equal(frame.layers["fc"][:, 0], values[:, 0])


def test_one_event_time_stands_for_all_rows_and_a_missing_id_is_minted() -> None:
    frame = Frame("m", {"fc": np.zeros((2, 1))}, event_time_ms=np.int64(7))
    assert frame.event_time_ms.tolist() == [7, 7]
    assert len(frame.frame_id) == 36
    assert frame.layers["fc"].dtype == np.float32


def test_what_the_caller_handed_over_is_left_alone() -> None:
    layers = {"fc": np.ones((2, 3), np.float64)}
    frame = Frame("m", layers, event_time_ms=np.int64(T0))
    assert frame.layers is not layers
    assert layers["fc"].dtype == np.float64


def test_a_frame_id_has_one_spelling() -> None:
    shouted = ID.upper()
    assert plain_frame({"fc": np.zeros((1, 1), np.float32)}, frame_id=shouted).frame_id == ID
    assert decoded(raw_frame(base_header(frame_id=shouted), BODY)).frame_id == ID


# What a constructor refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "model", "layers", "parts"),
    [
        ("bad_model", "a b", {"fc": np.zeros((1, 1))}, {}),
        ("bad_model", "a#1", {"fc": np.zeros((1, 1))}, {}),
        ("bad_model", "", {"fc": np.zeros((1, 1))}, {}),
        ("bad_model", "x" * 201, {"fc": np.zeros((1, 1))}, {}),
        ("no_layers", MODEL, {}, {}),
        ("bad_dtype", MODEL, {"fc": np.zeros((1, 1), np.int32)}, {}),
        ("bad_dtype", MODEL, {"fc": np.zeros((1, 1), np.complex64)}, {}),
        ("bad_shape", MODEL, {"fc": np.zeros(4)}, {}),
        ("bad_shape", MODEL, {"fc": np.zeros((2, 2, 2))}, {}),
        ("bad_shape", MODEL, {"fc": np.zeros((2, 0))}, {}),
        ("bad_shape", MODEL, {"a": np.zeros((2, 1)), "b": np.zeros((3, 1))}, {}),
        ("bad_shape", MODEL, {"fc": np.zeros((2, 1))}, {"output": np.zeros((1, 3))}),
        ("bad_shape", MODEL, {"fc": np.zeros((2, 1))}, {"predicted": np.zeros((2, 1), np.int64)}),
        ("bad_shape", MODEL, {"fc": np.zeros((2, 1))}, {"uncertainty": {"entropy": np.zeros(3)}}),
        ("bad_shape", MODEL, {"fc": np.zeros((2, 1))}, {"event_time_ms": np.zeros(3, np.int64)}),
        ("bad_dtype", MODEL, {"fc": np.zeros((2, 1))}, {"predicted": np.zeros(2)}),
        ("bad_dtype", MODEL, {"fc": np.zeros((2, 1))}, {"event_time_ms": np.zeros(2)}),
        ("bad_dtype", MODEL, {"fc": np.zeros((2, 1))}, {"label": np.zeros(2, np.uint64)}),
        ("bad_row_count", MODEL, {"fc": np.zeros((0, 1))}, {}),
        ("bad_sample_ids", MODEL, {"fc": np.zeros((2, 1))}, {"sample_ids": ["a"]}),
        ("bad_sample_ids", MODEL, {"fc": np.zeros((2, 1))}, {"sample_ids": ["a", 1]}),
        ("bad_sample_ids", MODEL, {"fc": np.zeros((2, 1))}, {"sample_ids": ["a", None]}),
        ("bad_client_ids", MODEL, {"fc": np.zeros((2, 1))}, {"client_ids": [None]}),
        ("bad_attack", MODEL, {"fc": np.zeros((2, 1))}, {"attack": [None, 0.5]}),
        ("bad_origins", MODEL, {"fc": np.zeros((2, 1))}, {"origins": [Origin(ID, 0)]}),
        ("bad_frame_id", MODEL, {"fc": np.zeros((2, 1))}, {"frame_id": "frame-1"}),
    ],
)
def test_parts_that_disagree_are_named(reason: str, model: str, layers: dict[str, Any], parts: dict[str, Any]) -> None:
    with pytest.raises(FrameInvalid) as caught:
        Frame(model, layers, **({"event_time_ms": np.int64(T0)} | parts))
    assert caught.value.reason == reason


def test_text_that_is_no_unicode_is_refused_before_it_travels() -> None:
    frame = plain_frame({"fc": np.zeros((1, 1), np.float32)}, sample_ids=["\ud800"])
    with pytest.raises(FrameInvalid, match="bad_text"):
        frame.encode()


# What a decoder refuses ----------------------------------------------------------------------------------------------

BODY = np.array([T0, T0]).tobytes() + np.ones((2, 2), np.float32).tobytes()


def base_header(**metadata: Any) -> dict[str, Any]:
    return {
        "__metadata__": {"schema": "1", "model": MODEL, "frame_id": ID, "kind": "data"} | metadata,
        "event_time_ms": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]},
        "layer.fc": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 32]},
    }


def with_tensor(name: str, dtype: str, shape: list[Any]) -> bytes:
    """The base frame with one tensor more, of zeros."""
    sizes = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "BOOL": 1, "U8": 1}
    size = sizes[dtype] * int(np.prod(shape))
    tensor = {"dtype": dtype, "shape": shape, "data_offsets": [32, 32 + size]}
    return raw_frame(base_header() | {name: tensor}, BODY + bytes(size))


def with_event_time(dtype: str, shape: list[int]) -> bytes:
    return raw_frame(base_header() | {"event_time_ms": {"dtype": dtype, "shape": shape, "data_offsets": [0, 16]}}, BODY)


def with_metadata(**metadata: Any) -> bytes:
    return raw_frame(base_header(**metadata), BODY)


def without(name: str) -> bytes:
    header = base_header()
    if name in header["__metadata__"]:
        del header["__metadata__"][name]
        return raw_frame(header, BODY)
    span = header.pop(name)["data_offsets"]
    body = BODY[: span[0]] + BODY[span[1] :]
    for other, entry in header.items():
        if other != "__metadata__" and entry["data_offsets"][0] >= span[1]:
            entry["data_offsets"] = [at - (span[1] - span[0]) for at in entry["data_offsets"]]
    return raw_frame(header, body)


def heartbeat(**metadata: Any) -> bytes:
    return raw_frame({"__metadata__": {"schema": "1", "model": MODEL, "frame_id": ID, "kind": "heartbeat"} | metadata})


MALFORMED: dict[str, tuple[str, bytes]] = {
    "no schema": ("unknown_schema", without("schema")),
    "schema of tomorrow": ("unknown_schema", with_metadata(schema="2")),
    "no metadata at all": ("unknown_schema", save({"layer.fc": np.zeros((1, 1), np.float32)})),
    "no kind": ("bad_kind", without("kind")),
    "odd kind": ("bad_kind", with_metadata(kind="x" * 1000)),
    "no model": ("bad_model", without("model")),
    "model of a shard": ("bad_model", with_metadata(model="m#1")),
    "model with a newline": ("bad_model", with_metadata(model="m\n")),
    "no frame id": ("bad_frame_id", without("frame_id")),
    "empty frame id": ("bad_frame_id", with_metadata(frame_id="")),
    "frame id of dashes": ("bad_frame_id", with_metadata(frame_id="-" * 36)),
    "frame id with spaces": ("bad_frame_id", with_metadata(frame_id="1234  78-1234-1234-1234-123456789012")),
    "frame id with a newline": ("bad_frame_id", with_metadata(frame_id=ID + "\n")),
    "frame id in other digits": ("bad_frame_id", with_metadata(frame_id="\u0661" * 8 + ID[8:])),
    "frame id without dashes": ("bad_frame_id", with_metadata(frame_id=ID.replace("-", ""))),
    "no event time": ("missing_tensor:event_time_ms", without("event_time_ms")),
    "event time in floats": ("bad_dtype", with_event_time("F64", [2])),
    "event time in two axes": ("bad_shape", with_event_time("I64", [2, 1])),
    "event time without an axis": ("bad_size", with_event_time("I64", [])),
    "no layers": ("no_layers", without("layer.fc")),
    "layer in whole numbers": ("bad_dtype", with_tensor("layer.x", "I64", [2, 1])),
    "layer in doubles": ("bad_dtype", with_tensor("layer.x", "F64", [2, 1])),
    "layer with one axis": ("bad_shape", with_tensor("layer.x", "F32", [2])),
    "layer with three axes": ("bad_shape", with_tensor("layer.x", "F32", [2, 1, 1])),
    "layer without an axis": ("bad_shape", with_tensor("layer.x", "F32", [])),
    "layer without features": ("bad_shape", with_tensor("layer.x", "F32", [2, 0])),
    "layer without rows": ("bad_shape", with_tensor("layer.x", "F32", [0, 2])),
    "layer with other rows": ("bad_shape", with_tensor("layer.x", "F32", [3, 1])),
    "output with other rows": ("bad_shape", with_tensor("output", "F16", [1, 4])),
    "output with one axis": ("bad_shape", with_tensor("output", "F32", [2])),
    "predicted in floats": ("bad_dtype", with_tensor("predicted", "F32", [2])),
    "predicted in 32 bits": ("bad_dtype", with_tensor("predicted", "I32", [2])),
    "label with other rows": ("bad_shape", with_tensor("label", "I64", [1])),
    "uncertainty in halves": ("bad_dtype", with_tensor("uncertainty.entropy", "F16", [2])),
    "uncertainty with other rows": ("bad_shape", with_tensor("uncertainty.entropy", "F32", [4])),
    "more rows than a frame holds": (
        "bad_row_count",
        raw_frame(
            base_header()
            | {
                "event_time_ms": {"dtype": "I64", "shape": [MAX_ROWS + 1], "data_offsets": [0, 8 * (MAX_ROWS + 1)]},
                "layer.fc": {
                    "dtype": "F16",
                    "shape": [MAX_ROWS + 1, 1],
                    "data_offsets": [8 * (MAX_ROWS + 1), 10 * (MAX_ROWS + 1)],
                },
            },
            bytes(10 * (MAX_ROWS + 1)),
        ),
    ),
    "sample ids that are no JSON": ("bad_sample_ids", with_metadata(sample_ids="['a', 'b']")),
    "sample ids that are no list": ("bad_sample_ids", with_metadata(sample_ids='{"a": "b"}')),
    "sample ids with a null": ("bad_sample_ids", with_metadata(sample_ids='["a", null]')),
    "sample ids with a number": ("bad_sample_ids", with_metadata(sample_ids='["a", 1]')),
    "one sample id too few": ("bad_sample_ids", with_metadata(sample_ids='["a"]')),
    "sample ids with half a character": ("bad_sample_ids", with_metadata(sample_ids='["\\ud800", "a"]')),
    "sample ids nested deeply": ("bad_sample_ids", with_metadata(sample_ids="[" * 100_000)),
    "client ids with a number": ("bad_client_ids", with_metadata(client_ids="[1, null]")),
    "attack with a list": ("bad_attack", with_metadata(attack='[[], "pgd"]')),
    "origins that are no origins": ("bad_origins", with_metadata(origins='["a", "b"]')),
    "origins too few": ("bad_origins", with_metadata(origins=json.dumps([f"{ID}:0:0:0"]))),
    "origin with a negative row": ("bad_origins", with_metadata(origins=json.dumps([f"{ID}:-1:0:0"] * 2))),
    "origin with a vast row": ("bad_origins", with_metadata(origins=json.dumps([f"{ID}:{10**15}:0:0"] * 2))),
    "origin with spaces": ("bad_origins", with_metadata(origins=json.dumps([f"{ID}: 1:0:0"] * 2))),
    "origin with underscores": ("bad_origins", with_metadata(origins=json.dumps([f"{ID}:1_0:0:0"] * 2))),
    "origin without a frame": ("bad_frame_id", with_metadata(origins='["a:0:0:0", "b:0:0:0"]')),
    "heartbeat without a time": ("bad_heartbeat", heartbeat()),
    "heartbeat at noon": ("bad_heartbeat", heartbeat(event_time_ms="noon")),
    "heartbeat beyond 64 bits": ("bad_heartbeat", heartbeat(event_time_ms=str(2**63))),
    "heartbeat of 5000 digits": ("bad_heartbeat", heartbeat(event_time_ms="9" * 5000)),
    "heartbeat without an id": ("bad_frame_id", heartbeat(event_time_ms="1", frame_id="")),
    "heartbeat of no model": ("bad_model", heartbeat(event_time_ms="1", model="")),
}


def test_the_base_of_the_malformed_frames_is_sound() -> None:
    assert len(decoded(raw_frame(base_header(), BODY))) == 2
    assert decoded(with_tensor("layer.x", "F16", [2, 3])).layers["x"].shape == (2, 3)


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_frame_is_refused_with_its_reason(fault: str) -> None:
    reason, data = MALFORMED[fault]
    with pytest.raises(FrameInvalid) as caught:
        decode(data)
    assert caught.value.reason == reason
    assert len(caught.value.detail) <= 500


def test_tensors_nobody_asked_for_are_ignored() -> None:
    frame = decoded(with_tensor("saliency", "U8", [7, 7, 7]))
    assert set(frame.layers) == {"fc"}


def test_the_earliest_and_the_latest_time_are_left_for_the_window_to_judge() -> None:
    times = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    frame = decoded(raw_frame(base_header(), times.tobytes() + BODY[16:]))
    assert frame.event_time_ms.tolist() == times.tolist()


def test_client_ids_and_attacks_may_be_null() -> None:
    frame = decoded(with_metadata(client_ids='[null, "a"]', attack="[null, null]"))
    assert frame.client_ids == [None, "a"]
    assert frame.attack == [None, None]


# Heartbeats ----------------------------------------------------------------------------------------------------------


def test_a_heartbeat_comes_back_as_it_was() -> None:
    beat = Heartbeat(MODEL, T0)
    assert decode(beat.encode()) == beat


def test_a_heartbeat_of_a_bad_model_is_refused_before_it_travels() -> None:
    with pytest.raises(FrameInvalid, match="bad_model"):
        Heartbeat("a b", T0).encode()


# Rows ----------------------------------------------------------------------------------------------------------------


def test_classes_are_the_predicted_ones_or_the_argmax_of_the_output() -> None:
    output = np.array([[0.1, 0.9], [0.8, 0.2]], np.float16)
    layers = {"fc": np.zeros((2, 1), np.float32)}
    argmax = plain_frame(layers, output=output).classes()
    named = plain_frame(layers, output=output, predicted=np.array([5, 6])).classes()
    assert argmax is not None
    assert argmax.tolist() == [1, 0]
    assert argmax.dtype == np.int64
    assert named is not None
    assert named.tolist() == [5, 6]
    assert plain_frame(layers).classes() is None


def test_taken_rows_keep_their_identity() -> None:
    taken = gaussian_frame(4, 0, sample_ids=list("abcd")).take(np.array([3, 1]))
    assert taken.sample_ids == ["d", "b"]
    assert [(origin.frame_id, origin.row) for origin in taken.row_origins()] == [(frame_id(0), 3), (frame_id(0), 1)]
    again = decoded(taken.encode()).take(np.array([False, True]))
    assert [origin.row for origin in again.row_origins()] == [1]


def test_joined_frames_keep_what_all_have_and_each_row_its_origin() -> None:
    first = gaussian_frame(2, 1, dimensions={"a": 2, "b": 3}, sample_ids=["x", "y"], predicted=np.array([0, 1]))
    second = gaussian_frame(1, 2, dimensions={"a": 2}, client_ids=["c"], predicted=np.array([2]))
    joined = concat([first, second])
    assert set(joined.layers) == {"a"}
    assert joined.sample_ids == ["x", "y", ""]
    assert joined.client_ids == [None, None, "c"]
    assert joined.predicted is not None
    assert joined.predicted.tolist() == [0, 1, 2]
    assert [(o.frame_id, o.row) for o in joined.row_origins()] == [(frame_id(1), 0), (frame_id(1), 1), (frame_id(2), 0)]


@pytest.mark.parametrize(
    ("reason", "second"),
    [
        ("mixed_models", lambda: Frame("other", {"fc": np.zeros((1, 8))}, event_time_ms=np.int64(T0))),
        ("bad_shape", lambda: gaussian_frame(1, 2, dimensions={"fc": 9})),
        ("bad_shape", lambda: gaussian_frame(1, 2, output=np.zeros((1, 3)))),
        ("no_layers", lambda: gaussian_frame(1, 2, dimensions={"other": 8})),
    ],
)
def test_frames_that_do_not_belong_together_are_named(reason: str, second: Callable[[], Frame]) -> None:
    with pytest.raises(FrameInvalid) as caught:
        concat([gaussian_frame(1, 1, output=np.zeros((1, 2))), second()])
    assert caught.value.reason == reason


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_with_a_number_that_is_none_are_found(dtype: type[np.floating], bad: float) -> None:
    values = np.ones((4, 3), dtype)
    values[2, 1] = bad
    frame = plain_frame({"a": np.ones((4, 2), dtype), "b": values})
    found = frame.finite_rows()
    assert found is not None
    assert found.tolist() == [True, True, False, True]
    assert frame.finite_rows(["a"]) is None


def test_infinities_of_both_signs_do_not_cancel() -> None:
    values = np.array([[np.inf, -np.inf], [1.0, 2.0]], np.float32)
    found = plain_frame({"fc": values}).finite_rows()
    assert found is not None
    assert found.tolist() == [False, True]


@pytest.mark.parametrize("payload", [0x7FC00001, 0xFF800001, 0x7FFFFFFF])
def test_every_float32_nan_is_a_nan_whatever_its_payload(payload: int) -> None:
    bits = np.full((2, 2), 0x3F800000, np.uint32)
    bits[1, 0] = payload
    found = plain_frame({"fc": bits.view(np.float32)}).finite_rows()
    assert found is not None
    assert found.tolist() == [True, False]


@pytest.mark.parametrize("payload", [0x7C01, 0xFC01, 0x7E00, 0xFFFF, 0x7C00, 0xFC00])
def test_every_float16_nan_or_infinity_is_found_whatever_its_payload(payload: int) -> None:
    bits = np.full((2, 2), 0x3C00, np.uint16)
    bits[1, 0] = payload
    found = plain_frame({"fc": bits.view(np.float16)}).finite_rows()
    assert found is not None
    assert found.tolist() == [True, False]


@pytest.mark.parametrize("place", [0, 8_191, 8_192, 16_383, 16_384, 19_999])
def test_a_bad_number_is_found_wherever_a_large_array_holds_it(place: int) -> None:
    values = np.ones((4, 5_000), np.float32)
    values.flat[place] = np.nan
    found = plain_frame({"fc": values}).finite_rows()
    assert found is not None
    assert np.flatnonzero(~found).tolist() == [place // 5_000]


def test_a_sum_that_overflows_is_no_bad_row() -> None:
    assert plain_frame({"fc": np.full((4, 4), 3e38, np.float32)}).finite_rows() is None
    assert plain_frame({"fc": np.full((4, 4), 65504, np.float16)}).finite_rows() is None


def test_a_bad_output_makes_a_bad_row() -> None:
    output = np.array([[0.5, 0.5], [np.nan, 0.5]], np.float32)
    found = plain_frame({"fc": np.ones((2, 1), np.float32)}, output=output).finite_rows()
    assert found is not None
    assert found.tolist() == [True, False]


def test_an_origin_reads_back_as_it_was_written() -> None:
    origin = Origin(ID, 7, 3, 2**62)
    assert Origin.parse(str(origin)) == origin
    assert Origin.parse(str(Origin(ID, 0))) == Origin(ID, 0)
