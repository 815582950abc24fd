"""What operators tell incidents by the `control` topic. Plans of shards, which go there too: `operations.py`."""

import uuid
from collections.abc import Mapping
from typing import ClassVar, Final, Self

from pydantic import Field, model_validator

from hydrophone.schemas.alert import Severity
from hydrophone.schemas.event import Event, event_id
from hydrophone.schemas.incidents import ModelId, Signal, Tenant, TimeMs, Verdict

__all__ = ["COMMANDS", "Acknowledge", "Close", "Command", "Drill", "Suppress", "command_id"]


class Command(Event):
    """Who, when and why; key `id`. A record with the same id is the same command, and counts once."""

    by: str = Field(min_length=1, max_length=200)
    reason: str = Field(max_length=2_000)
    at_ms: TimeMs


class Acknowledge(Command):
    """Somebody is looking at it."""

    event_type: ClassVar[str] = "org.hydrophone.acknowledge.v1"

    incident_id: uuid.UUID


class Close(Command):
    """Somebody knows what it was."""

    event_type: ClassVar[str] = "org.hydrophone.close.v1"

    incident_id: uuid.UUID
    verdict: Verdict


class Suppress(Command):
    """Incidents of a model stay quiet for a time of their windows. The latest command for a model and signal holds.

    They are still told, as suppressed; nothing is dropped. `until_ms` in the past ends a suppression.
    """

    event_type: ClassVar[str] = "org.hydrophone.suppress.v1"

    tenant: Tenant = "default"
    model: ModelId
    signal: Signal | None = Field(None, description="null: all")
    from_ms: TimeMs
    until_ms: TimeMs | None = Field(description="null: until another command")

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.until_ms is not None and self.until_ms < self.from_ms:
            raise ValueError(f"`until_ms` must not be before `from_ms`; got {self.from_ms} to {self.until_ms}")
        return self


class Drill(Command):
    """An incident that is marked as an exercise goes the whole way, and closes."""

    event_type: ClassVar[str] = "org.hydrophone.drill.v1"

    tenant: Tenant = "default"
    model: ModelId
    severity: Severity = "low"


COMMANDS: Final[Mapping[str, type[Command]]] = {kind.event_type: kind for kind in (Acknowledge, Close, Suppress, Drill)}
"""By the CloudEvents type of the record."""


def command_id(kind: type[Command], target: object, by: str, at_ms: int) -> uuid.UUID:
    """Sent twice because nobody answered, a command is still one."""
    return event_id("command", kind.event_type, target, by, at_ms)
