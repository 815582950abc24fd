"""Events are frozen, refuse what they do not know, and have ids that a replay gets again."""

import uuid

import pytest
from pydantic import ValidationError
from tests.support.events import ALERT, DEAD_LETTER, OPERATIONAL, POINTER, SCORE, STATE

from hydrophone.schemas.event import Event, Value, WindowBounds, canonical_json, event_id, sha256_of

EVERY = [ALERT, DEAD_LETTER, OPERATIONAL, POINTER, SCORE, STATE]


@pytest.mark.parametrize("value", EVERY, ids=lambda value: type(value).__name__)
def test_an_event_reads_back_from_its_json(value: Value) -> None:
    assert type(value).model_validate_json(value.model_dump_json()) == value


@pytest.mark.parametrize("value", EVERY, ids=lambda value: type(value).__name__)
def test_an_event_cannot_be_changed(value: Value) -> None:
    name = next(iter(type(value).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(value, name, None)


@pytest.mark.parametrize("value", EVERY, ids=lambda value: type(value).__name__)
def test_an_unknown_field_is_refused(value: Value) -> None:
    with pytest.raises(ValidationError, match="extra"):
        type(value).model_validate(value.model_dump() | {"surprise": 1})


def test_every_event_type_names_itself_and_its_version_once() -> None:
    types = [kind.event_type for kind in (type(ALERT), type(OPERATIONAL), type(SCORE), type(POINTER), type(STATE))]
    assert len(set(types)) == len(types)
    assert all(name.startswith("org.hydrophone.") and name.endswith(".v1") for name in types)
    assert all(issubclass(kind, Event) for kind in (type(ALERT), type(OPERATIONAL), type(SCORE)))


def test_an_id_names_what_it_is_the_id_of() -> None:
    assert event_id("score", "m", 1) == event_id("score", "m", 1)
    assert event_id("score", "m", 1) != event_id("score", "m", 2)
    assert event_id("a", "bc") != event_id("ab", "c")
    assert event_id("x").version == uuid.uuid5(uuid.NAMESPACE_DNS, "x").version


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    assert sha256_of({"a": 1, "b": 2}) == sha256_of({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_probability_lies_between_0_and_1(probability: float) -> None:
    with pytest.raises(ValidationError):
        type(ALERT).model_validate(ALERT.model_dump() | {"p_value": probability})


@pytest.mark.parametrize("digest", ["", "a" * 63, "A" * 64, "a" * 64 + "\n", "g" * 64])
def test_a_sha256_has_64_lower_case_digits(digest: str) -> None:
    with pytest.raises(ValidationError):
        type(STATE).model_validate(STATE.model_dump() | {"reference_sha256": digest})


def test_a_window_is_told_by_two_instants() -> None:
    assert WindowBounds(start_ms=0, end_ms=60_000).model_dump() == {"start_ms": 0, "end_ms": 60_000}
