"""Every parser of what others wrote: how to feed it, what a right answer looks like, and the errors it may raise."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from pydantic import ValidationError
from tests.support.frames import gaussian_frame, plain_frame

from hydrophone.detectors import fit_reference
from hydrophone.detectors.artefact import ReferenceArtefact
from hydrophone.schemas.alert import Alert
from hydrophone.schemas.errors import ConfigurationError, FrameInvalid, RecordRejected, ReferenceInvalid
from hydrophone.schemas.frame import Heartbeat, decode
from hydrophone.schemas.headers import dead_letter_from_headers, dead_letter_headers, from_record
from hydrophone.schemas.operations import DeadLetter, ModelState, OperationalEvent, ReferencePointer, operational_event
from hydrophone.schemas.origins import Origin
from hydrophone.schemas.safetensors_header import read_header
from hydrophone.schemas.score import WindowScore
from hydrophone.schemas.signature import SIGNATURE_HEADER, Signature, SigningKey, verifier
from hydrophone.streams.checkpoint import Checkpoint, Pending
from hydrophone.streams.score_files import read_scores

__all__ = ["CASES", "HEADERS", "PARSERS", "HeaderParser", "Parser"]

FIXTURES: Final = Path(__file__).parents[1] / "fixtures"
CASES: Final[Counter[str]] = Counter()
KEY: Final = SigningKey("a", b"sixteen bytes...")
SHA: Final = "0" * 64


@dataclass(frozen=True)
class Parser:
    """`parse` takes bytes; `seeds` are right inputs to damage; it may raise `errors` and nothing else."""

    parse: Callable[[bytes], object]
    seeds: Sequence[bytes]
    errors: tuple[type[Exception], ...]


@dataclass(frozen=True)
class HeaderParser:
    """As `Parser`, for what stands in a record's headers."""

    parse: Callable[[list[tuple[str, bytes | None]]], object]
    seed: Sequence[tuple[str, bytes | None]]
    errors: tuple[type[Exception], ...]


def _scores(data: bytes) -> object:
    path = _folder() / "scores.jsonl"
    path.write_bytes(data)
    return list(read_scores([path]))


def _manifest(data: bytes) -> object:
    (_folder() / "reference" / "manifest.json").write_bytes(data)
    return ReferenceArtefact.load(_folder() / "reference")


_FOLDERS: list[Path] = []


def _folder() -> Path:
    """One for the whole run, with a small reference in it."""
    if not _FOLDERS:
        folder = Path(mkdtemp(prefix="hydrophone-fuzz-"))
        fit_reference([gaussian_frame(60, 0)], permutations=19, device="cpu").save(folder / "reference")
        _FOLDERS.append(folder)
    return _FOLDERS[0]


def _valid_manifest() -> bytes:
    return (_folder() / "reference" / "manifest.json").read_bytes()


def _event(kind: type[Any]) -> Callable[[bytes], object]:
    return lambda data: from_record(kind, data, [("ce_type", kind.event_type.encode())])


FRAMES: Final = (
    (FIXTURES / "frame-v1.safetensors").read_bytes(),
    Heartbeat("m", 1, "123e4567-e89b-12d3-a456-426614174000").encode(),
    plain_frame({"fc": [[1.0, 2.0]]}, sample_ids=["s"], client_ids=[None]).encode(),  # type: ignore[dict-item]
)
SCORE: Final = (FIXTURES / "score-v1.json").read_bytes()
STATE: Final = ModelState(model="m", reference_sha256=SHA, last_end_ms=5, recent_p_values=(0.5,), sequential=(1.0,))
POINTER: Final = ReferencePointer(model="m", version="1", uri="file:///r", sha256=SHA, effective_from_ms=1)
CHECKPOINT: Final = Checkpoint(1_000, 5, 7, {"m": Pending(1, 2, 3)}).encode().encode()
FACT: Final = operational_event("log_gap", "t", 0, "detail", first_offset=1, last_offset=2)

PARSERS: Final[Mapping[str, Parser]] = {
    "frame": Parser(decode, FRAMES, (FrameInvalid,)),
    "safetensors header": Parser(read_header, FRAMES, (FrameInvalid,)),
    "score event": Parser(_event(WindowScore), (SCORE,), (RecordRejected,)),
    "alert event": Parser(_event(Alert), ((FIXTURES / "alert-v1.json").read_bytes(),), (RecordRejected,)),
    "operational event": Parser(_event(OperationalEvent), (FACT.model_dump_json().encode(),), (RecordRejected,)),
    "checkpoint": Parser(
        lambda data: Checkpoint.decode(data.decode(errors="replace"), window_ms=1_000),
        (CHECKPOINT,),
        (ConfigurationError,),
    ),
    "model state": Parser(ModelState.model_validate_json, (STATE.model_dump_json().encode(),), (ValidationError,)),
    "reference pointer": Parser(
        ReferencePointer.model_validate_json, (POINTER.model_dump_json().encode(),), (ValidationError,)
    ),
    "reference manifest": Parser(_manifest, (_valid_manifest(),), (ReferenceInvalid,)),
    "score file": Parser(_scores, (json.dumps(json.loads(SCORE)).encode() + b"\n",), (ConfigurationError,)),
    "origin": Parser(
        lambda data: Origin.parse(data.decode(errors="replace")),
        (str(Origin("123e4567-e89b-12d3-a456-426614174000", 1, 2, 3)).encode(),),
        (FrameInvalid,),
    ),
    "signature": Parser(Signature.parse, (KEY.sign(b"k", b"v"),), (RecordRejected,)),
}

LETTER: Final = DeadLetter(reason="r", detail="d", topic="t", partition=0, offset=1, timestamp_ms=2, version="1")
HEADERS: Final[Mapping[str, HeaderParser]] = {
    "dead letter headers": HeaderParser(
        dead_letter_from_headers, dead_letter_headers(LETTER, [("traceparent", b"x")]), (RecordRejected,)
    ),
    "event headers": HeaderParser(
        lambda headers: from_record(WindowScore, SCORE, headers),
        [("ce_type", WindowScore.event_type.encode()), ("ce_id", b"1")],
        (RecordRejected,),
    ),
    "signature headers": HeaderParser(
        lambda headers: verifier({KEY.key_id: KEY.secret}, is_required=True)(b"k", b"v", headers),
        [(SIGNATURE_HEADER, KEY.sign(b"k", b"v")), ("traceparent", b"x")],
        (RecordRejected,),
    ),
}
