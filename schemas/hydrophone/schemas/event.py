"""What every event shares: frozen pydantic models, deterministic ids, canonical JSON. No event lives here."""

import hashlib
import json
import uuid
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Event", "Probability", "Sha256", "Value", "WindowBounds", "canonical_json", "event_id", "sha256_of"]

NAMESPACE: Final = uuid.UUID("6f1d1a5e-2f0b-5d6c-9a4e-7b1c3d2e4f50")
"""Namespace of every id Hydrophone derives; changing it changes all ids."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Value(BaseModel):
    """A frozen part of an event; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Event(Value):
    """A whole event. `event_type` names it on the wire (CloudEvents `type`), with its version."""

    event_type: ClassVar[str]

    id: uuid.UUID


class WindowBounds(Value):
    """A tumbling window `[start_ms, end_ms)`, UTC milliseconds since the epoch."""

    start_ms: int
    end_ms: int


def event_id(*names: object) -> uuid.UUID:
    """The id of the thing these names name: the same names give the same id, so a replay gives the same ids."""
    return uuid.uuid5(NAMESPACE, canonical_json([str(name) for name in names]))


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces (the relevant part of RFC 8785)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
