"""Operational facts: told twice, they are told once."""

from tests.support.events import POINTER

from hydrophone.schemas.operations import operational_event


def test_the_id_names_the_fact_and_not_how_it_was_put() -> None:
    first = operational_event("log_gap", "t", 0, "3 records are gone", first_offset=1, last_offset=3)
    again = operational_event("log_gap", "t", 0, "three records are gone", first_offset=1, last_offset=3)
    other = operational_event("log_gap", "t", 1, "3 records are gone", first_offset=1, last_offset=3)
    assert first.id == again.id
    assert first.id != other.id


def test_a_reference_pointer_is_keyed_by_model_and_version() -> None:
    assert POINTER.key == "mnist/cnn@2024-01"
