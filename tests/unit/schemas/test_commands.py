"""Commands come back from records, and one sent twice is one."""

import uuid

import pytest
from pydantic import ValidationError

from hydrophone.schemas.commands import COMMANDS, Acknowledge, Close, Command, Drill, Suppress, command_id
from hydrophone.schemas.errors import RecordRejected
from hydrophone.schemas.headers import from_record, to_record

INCIDENT = uuid.UUID(int=1)
WHO = {"by": "r.okafor", "reason": "looking", "at_ms": 5}


def issued(kind: type[Command], target: object, **fields: object) -> Command:
    return kind.model_validate({"id": command_id(kind, target, "r.okafor", 5), **WHO, **fields})


ISSUED = [
    issued(Acknowledge, INCIDENT, incident_id=INCIDENT),
    issued(Close, INCIDENT, incident_id=INCIDENT, verdict="benign"),
    issued(Suppress, "m", model="m", from_ms=1, until_ms=None),
    issued(Drill, "m", model="m"),
]


@pytest.mark.parametrize("command", ISSUED, ids=lambda command: type(command).__name__)
def test_a_command_comes_back_from_its_record(command: Command) -> None:
    record = to_record(command, key=str(command.id), time_ms=command.at_ms)
    kind = COMMANDS[dict(record.headers)["ce_type"].decode()]
    assert from_record(kind, record.value, record.headers) == command


def test_commands_are_told_apart_by_kind_and_target() -> None:
    assert len(COMMANDS) == len({command.id for command in ISSUED}) == 4
    assert command_id(Close, INCIDENT, "r.okafor", 5) == ISSUED[1].id
    record = to_record(ISSUED[0], key="", time_ms=0)
    with pytest.raises(RecordRejected, match="wrong_event_type"):
        from_record(Close, record.value, record.headers)


def test_a_suppression_does_not_end_before_it_begins() -> None:
    with pytest.raises(ValidationError, match="`until_ms` must not be before `from_ms`; got 2 to 1"):
        issued(Suppress, "m", model="m", from_ms=2, until_ms=1)


def test_nobody_is_no_author() -> None:
    with pytest.raises(ValidationError, match="by"):
        issued(Drill, "m", model="m", by="")
