"""Bytes written once by version 1, which every later version must read. Never regenerate them: add a new one.

    tests/fixtures/frame-v1.safetensors      two rows with everything a frame can carry
    tests/fixtures/heartbeat-v1.safetensors
    tests/fixtures/score-v1.json, alert-v1.json
    tests/fixtures/signature-v1.json         the first frame's signature, and the key that made it

They are plain data: the safetensors format and JSON, which other languages read without us.
"""

import hashlib
import hmac
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from hydrophone.schemas.alert import Alert
from hydrophone.schemas.errors import SignatureInvalid
from hydrophone.schemas.event import Event
from hydrophone.schemas.frame import Frame, Heartbeat, decode
from hydrophone.schemas.origins import Origin
from hydrophone.schemas.score import WindowScore
from hydrophone.schemas.signature import verifier

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_the_first_frame_still_reads() -> None:
    frame = decode((FIXTURES / "frame-v1.safetensors").read_bytes())
    assert isinstance(frame, Frame)
    assert frame.model == "mnist/cnn"
    assert frame.frame_id == "123e4567-e89b-12d3-a456-426614174000"
    assert frame.event_time_ms.tolist() == [1_700_000_000_000, 1_700_000_000_001]
    assert frame.layers["conv"].tolist() == [[0.5, -1.0, 2.0], [0.0, 1.5, -0.25]]
    assert frame.layers["conv"].dtype == np.float32
    assert frame.layers["fc"].tolist() == [[1.0, 2.0], [3.0, -4.0]]
    assert frame.layers["fc"].dtype == np.float16
    assert frame.output is not None
    assert frame.output.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert frame.predicted is not None
    assert frame.predicted.tolist() == [1, 0]
    assert frame.label is not None
    assert frame.label.tolist() == [0, 1]
    assert frame.uncertainty is not None
    assert frame.uncertainty["entropy"].tolist() == [0.5, 1.0]
    assert frame.sample_ids == ["first", "sécond"]
    assert frame.client_ids == ["client", None]
    assert frame.attack == [None, "pgd"]
    assert frame.origins == [
        Origin("123e4567-e89b-12d3-a456-426614174001", 5, 2, 1099511627776),
        Origin("123e4567-e89b-12d3-a456-426614174002", 0, -1, -1),
    ]


def test_the_first_frame_reads_without_us() -> None:
    tensors = load((FIXTURES / "frame-v1.safetensors").read_bytes())
    assert tensors["layer.conv"].tolist() == [[0.5, -1.0, 2.0], [0.0, 1.5, -0.25]]


def test_the_first_heartbeat_still_reads() -> None:
    beat = decode((FIXTURES / "heartbeat-v1.safetensors").read_bytes())
    assert beat == Heartbeat("mnist/cnn", 1_700_000_000_000, "123e4567-e89b-12d3-a456-426614174000")


@pytest.mark.parametrize(("name", "kind"), [("score-v1.json", WindowScore), ("alert-v1.json", Alert)])
def test_the_first_event_still_reads_and_loses_nothing(name: str, kind: type[Event]) -> None:
    text = (FIXTURES / name).read_text()
    event = kind.model_validate_json(text)
    written = json.loads(event.model_dump_json())
    assert holds(written, json.loads(text))


def holds(later: object, earlier: object) -> bool:
    """Everything `earlier` says stands in `later` too, which may say more."""
    if isinstance(earlier, dict) and isinstance(later, dict):
        return all(name in later and holds(later[name], value) for name, value in earlier.items())
    if isinstance(earlier, list) and isinstance(later, list):
        return len(earlier) == len(later) and all(map(holds, later, earlier))
    return later == earlier


def test_the_first_signature_is_still_good() -> None:
    claim = json.loads((FIXTURES / "signature-v1.json").read_text())
    key, value = claim["key"].encode(), (FIXTURES / claim["value"]).read_bytes()
    verify = verifier({claim["key_id"]: claim["secret"].encode()}, is_required=True)
    verify(key, value, [(claim["header"], claim["signature"].encode())])
    with pytest.raises(SignatureInvalid):
        verify(key, value + b"\0", [(claim["header"], claim["signature"].encode())])


def test_the_first_signature_is_made_without_us() -> None:
    claim = json.loads((FIXTURES / "signature-v1.json").read_text())
    value = (FIXTURES / claim["value"]).read_bytes()
    signed = b"hydrophone-signature;v1\0"
    for part in (claim["key"].encode(), value):
        signed += struct.pack(">Q", len(part)) + part
    digits = hmac.new(claim["secret"].encode(), signed, hashlib.sha256).hexdigest()
    assert claim["signature"] == f"v1;{claim['key_id']};{digits}"
