"""What is particular to a form, on the documented example."""

import pytest

from hydrophone.schemas.incidents import Finding, finding_of
from hydrophone.schemas.siem import to_alertmanager, to_cef, to_ecs, to_hec, to_leef, to_ocsf
from hydrophone.schemas.siem.example import EXAMPLE, STEPS
from hydrophone.schemas.siem.fitting import EVENT_LIMIT, encoded
from hydrophone.schemas.siem.splunk import connect_headers
from hydrophone.schemas.siem.syslog import framed, syslog_message
from hydrophone.schemas.siem.wording import iso_time

CHANGED, ACKNOWLEDGED, SUPPRESSED, CLOSED = STEPS


def of(finding: Finding, **changes: object) -> Finding:
    return finding.model_copy(update={"incident": finding.incident.model_copy(update=changes)})


def test_a_step_is_what_its_cause_makes_it() -> None:
    told = [(d["activity_name"], d["status"], d["disposition"], d["verdict"]) for d in map(to_ocsf, STEPS)]
    assert told == [
        ("Update", "New", "Detected", "Suspicious"),
        ("Update", "In Progress", "Detected", "Suspicious"),
        ("Update", "Suppressed", "Logged", "Suspicious"),
        ("Close", "Resolved", "Detected", "True Positive"),
    ]
    assert to_ocsf(ACKNOWLEDGED)["assignee"] == {"name": "r.okafor"}
    assert to_ocsf(CLOSED)["status_detail"] == "resolved by r.okafor: the red team confirms"


def test_a_drill_says_so_everywhere() -> None:
    drill = of(EXAMPLE, signal="drill")
    assert to_ocsf(drill)["verdict"] == "Test"
    assert "drill" in to_ocsf(drill)["metadata"]["labels"]
    assert "drill" in to_ecs(drill)["tags"]
    assert all("DRILL, no attack" in text for text in (to_cef(drill), to_leef(drill), to_ocsf(drill)["message"]))
    assert to_alertmanager(drill)[0]["labels"]["signal"] == "drill"


def test_a_technique_belongs_to_each_of_its_tactics_and_a_sub_technique_to_its_parent() -> None:
    attacks = to_ocsf(of(EXAMPLE, atlas_techniques=("AML.T0015", "AML.T0043.001")))["finding_info"]["attacks"]
    assert [attack["tactic"]["name"] for attack in attacks] == [
        "Initial Access",
        "Defense Evasion",
        "Impact",
        "AI Attack Staging",
    ]
    assert attacks[3]["technique"]["name"] == "Craft Adversarial Data"
    assert attacks[3]["sub_technique"]["name"] == "Black-Box Optimization"


def test_the_most_telling_are_kept_where_not_all_fit() -> None:
    suspects = tuple(
        EXAMPLE.incident.suspects[0].model_copy(update={"row": row, "sample_id": "s" * 50}) for row in range(500)
    )
    document = to_ocsf(of(EXAMPLE, suspects=suspects))
    kept = [suspect["row"] for suspect in document["evidences"][0]["data"]["suspects"]]
    assert kept == list(range(len(kept)))
    assert 8 <= len(kept) < 500
    assert document["metadata"]["is_truncated"] is True
    whole = len(encoded({"suspects": [suspect.model_dump(mode="json") for suspect in suspects]}))
    assert abs(document["metadata"]["untruncated_size"] * 1000 - whole) < EVENT_LIMIT
    assert document["unmapped"]["hydrophone"]["totals"]["suspects"] == 37, "totals are of all"


@pytest.mark.parametrize("field", ["title", "recommended_action"])
def test_a_text_too_long_for_its_field_is_cut_and_told_of(field: str) -> None:
    """CEF has room for no recommended action at all: there, nothing is missing."""
    line = to_cef(of(EXAMPLE, **{field: "t" * 600}))
    assert ("flexNumber1Label=untruncatedBytes" in line) == ("ttt" in line) == (field == "title")
    assert "t" * 512 + "t" not in line


def test_a_change_of_severity_ends_the_alert_that_was() -> None:
    now, before = to_alertmanager(CHANGED)
    assert (now["labels"].pop("severity"), before["labels"].pop("severity")) == ("high", "medium")
    assert now["labels"] == before["labels"]
    assert now["endsAt"] > before["endsAt"] == iso_time(EXAMPLE.incident.updated_ms)


@pytest.mark.parametrize("step", [SUPPRESSED, CLOSED], ids=["suppressed", "closed"])
def test_who_is_called_at_night_hears_when_it_is_over(step: Finding) -> None:
    [alert] = to_alertmanager(step)
    assert alert["endsAt"] == iso_time(step.incident.updated_ms)
    [firing] = to_alertmanager(finding_of(ACKNOWLEDGED.incident, "still_seen", EXAMPLE.producer), hold_ms=60_000)
    assert firing["endsAt"] == iso_time(ACKNOWLEDGED.incident.updated_ms + 60_000)


def test_splunk_finds_the_same_place_by_both_ways() -> None:
    event = to_hec(EXAMPLE, host="h", index="security")
    headers = {name.removeprefix("splunk.header."): value.decode() for name, value in connect_headers(host="h")}
    assert headers == {name: event[name] for name in ("host", "source", "sourcetype")}
    assert "index" not in to_hec(EXAMPLE, host="h")
    assert dict(connect_headers(host="h", index="security"))["splunk.header.index"] == b"security"


def test_a_message_without_a_host_or_a_version_is_still_one() -> None:
    message = syslog_message("x", severity=3, time_ms=0, hostname="")
    assert message == b'<107>1 1970-01-01T00:00:00.000Z - Hydrophone - - [origin software="Hydrophone"] x'
    assert framed(message).startswith(b"%d <107>" % len(message))


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_760_000_000_007, "2025-10-09T08:53:20.007Z"),
        (-1, "1970-01-01T00:00:00.000Z"),
        (2**70, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_every_number_is_a_time(ms: int, text: str) -> None:
    assert iso_time(ms) == text
