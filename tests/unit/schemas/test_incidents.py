"""What an incident and its findings claim about themselves holds, or they are none."""

import uuid
from typing import Any

import pytest
from pydantic import ValidationError

from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.incidents import (
    Closing,
    Finding,
    Incident,
    dedup_key,
    finding_id,
    finding_of,
    incident_id,
    revised,
)
from hydrophone.schemas.siem.example import EXAMPLE, STEPS

INCIDENT = EXAMPLE.incident
ANOTHER = uuid.UUID(int=7)


def test_ids_follow_from_what_they_name() -> None:
    key = dedup_key("default", "m", "difference")
    assert incident_id(key, 1) == incident_id(key, 1)
    assert len({incident_id(key, 1), incident_id(key, 2), incident_id(dedup_key("default", "m", "replay"), 1)}) == 3
    assert finding_id(INCIDENT.id, 1) != finding_id(INCIDENT.id, 2)


def test_ids_never_change() -> None:
    """They are in other people's systems."""
    assert str(incident_id("default|m|difference", 0)) == "c7f6f5c4-54fc-58bc-9f93-e2a2b4dce48e"
    assert str(finding_id(ANOTHER, 1)) == "08850c53-05ee-520f-95f6-da1374ffe45c"


def test_no_dedup_key_is_longer_than_any_receiver_takes() -> None:
    assert len(dedup_key("t" * 40, "m" * 200, "difference")) <= 255


@pytest.mark.parametrize("step", STEPS, ids=lambda step: str(step.cause))
def test_every_step_comes_back_from_json(step: Finding) -> None:
    assert Finding.model_validate_json(step.model_dump_json()) == step
    assert Incident.model_validate_json(step.incident.model_dump_json()) == step.incident


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": ANOTHER}, "`id` follows from the rest"),
        ({"episode_start_ms": 5}, "`id` follows from the rest"),
        ({"dedup_key": "k"}, "`dedup_key` follows"),
        ({"status": "resolved"}, "`status` follows from the rest, which makes it new; got resolved"),
        ({"first_seen_ms": INCIDENT.last_seen_ms + 1}, "`first_seen_ms` must not be after `last_seen_ms`"),
        ({"opened_ms": INCIDENT.updated_ms + 1}, "`opened_ms` must not be after `updated_ms`"),
        ({"sequence": 0}, "greater than or equal to 1"),
        ({"model": "a|b"}, "should match pattern"),
        ({"tenant": "a b"}, "should match pattern"),
        ({"atlas_techniques": ("T1059",)}, "should match pattern"),
        ({"statistic": float("inf")}, "finite"),
        ({"updated_ms": 2**60}, "less than or equal"),
        ({"note": "x"}, "Extra inputs"),
    ],
)
def test_an_incident_that_disagrees_with_itself_is_none(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Incident.model_validate(dict(INCIDENT) | change)


def test_numbers_taken_over_from_other_events_are_bounded() -> None:
    window = INCIDENT.windows[0].model_copy(update={"window": WindowBounds(start_ms=0, end_ms=2**63)})
    suspect = INCIDENT.suspects[0].model_copy(update={"offset": 10**40})
    for change in ({"windows": (window,)}, {"suspects": (suspect,)}):
        with pytest.raises(ValidationError, match="must fit into 64 bits"):
            Incident.model_validate(dict(INCIDENT) | change)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": ANOTHER}, "`id` names another"),
        ({"action": "open"}, "`action` of `severity_changed` is `update`"),
        ({"severity_before": None}, "`severity_before` comes with"),
        ({"cause": "opened", "action": "open", "severity_before": None}, "`opened` is the first step"),
        ({"cause": "closed", "action": "close", "severity_before": None}, "`closed` tells a resolved incident"),
        ({"cause": "suppressed", "action": "suppress", "severity_before": None}, "tells a suppressed incident"),
    ],
)
def test_a_finding_that_disagrees_with_its_incident_is_none(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Finding.model_validate(dict(EXAMPLE) | change)


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "/incidents/1", "https://", "https://a b", "https://a/\n", "https://a/" + "b" * 1_000],
)
def test_a_page_has_an_address_of_the_web(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        finding_of(INCIDENT, "still_seen", EXAMPLE.producer, url=url)


def test_a_step_of_an_incident_takes_the_next_number_and_the_status_that_follows() -> None:
    acknowledged, suppressed, closed = (step.incident for step in STEPS[1:])
    assert [INCIDENT.sequence, acknowledged.sequence, suppressed.sequence, closed.sequence] == [2, 3, 4, 5]
    assert [acknowledged.status, suppressed.status, closed.status] == ["in_progress", "suppressed", "resolved"]
    assert revised(closed, closed=None).status == "in_progress", "reopened, it is still acknowledged"
    assert revised(INCIDENT, confidence=0.5, is_told=False).sequence == INCIDENT.sequence
    with pytest.raises(ValidationError, match="confidence"):
        revised(INCIDENT, confidence=2.0)


def test_only_operators_know_what_it_was() -> None:
    with pytest.raises(ValidationError, match="got quiet, no decision, a verdict"):
        Closing(reason="quiet", at_ms=0, detail="", verdict="benign")
    with pytest.raises(ValidationError, match="got operator, no decision, no verdict"):
        Closing(reason="operator", at_ms=0, detail="")
