"""For every finding, each form is whole: OCSF by two readers of others, lines by parsers written from the standards.

Five things the OCSF schema lets pass are held here: the type that goes with the activity, milliseconds, addresses,
captions that say what their numbers say, and a status that goes with the activity.
"""

import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from py_ocsf_models.events.findings.detection_finding import DetectionFinding
from tests.support.findings import HOSTILE, findings
from tests.support.lines import parse_cef, parse_leef, parse_syslog, unframed

from hydrophone.schemas.incidents import Finding
from hydrophone.schemas.siem import to_alertmanager, to_cef, to_ecs, to_hec, to_leef, to_ocsf, to_syslog
from hydrophone.schemas.siem.example import STEPS
from hydrophone.schemas.siem.fitting import EVENT_LIMIT, encoded
from hydrophone.schemas.siem.lines import LINE_LIMIT
from hydrophone.schemas.siem.syslog import MESSAGE_LIMIT, framed, syslog_message

few = settings(
    max_examples=20,
    deadline=None,
    # A finding has a hundred parts, and most of the time goes into drawing them.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@functools.cache
def ocsf_schema() -> Any:
    return get_ocsf_schema(version="1.8.0")


@functools.cache
def ocsf_validator() -> Draft202012Validator:
    profiles = ["security_control", "incident"]
    schema = OcsfJsonSchemaEmbedded(ocsf_schema()).get_class_schema(class_name="detection_finding", profiles=profiles)
    return Draft202012Validator(schema)


def as_sent(document: Any) -> Any:
    """What a receiver makes of it; no NaN, no half characters."""
    return json.loads(encoded(document).decode(), parse_constant=pytest.fail)


def entries(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every named value, with the name it goes by."""
    if isinstance(value, dict):
        for inner, entry in value.items():
            yield from entries(entry, inner)
    elif isinstance(value, list):
        for entry in value:
            yield from entries(entry, name)
    else:
        yield name, value


def one_of_each(test: Callable[..., None]) -> Callable[..., None]:
    for step in STEPS:
        test = example(step)(test)
    return test


# OCSF ----------------------------------------------------------------------------------------------------------------


@few
@given(findings())
@one_of_each
def test_every_ocsf_document_is_valid_by_the_schema_and_read_by_another_library(finding: Finding) -> None:
    document = as_sent(to_ocsf(finding))
    faults = [f"{fault.json_path}: {fault.message}" for fault in ocsf_validator().iter_errors(document)]
    assert faults == []
    read = DetectionFinding.model_validate(document)
    assert read.finding_info.uid == str(finding.incident.id)
    assert read.metadata.uid == str(finding.id)


@few
@given(findings())
@one_of_each
def test_what_the_ocsf_schema_lets_pass_is_right_too(finding: Finding) -> None:
    document, incident = to_ocsf(finding), finding.incident
    assert document["type_uid"] == document["class_uid"] * 100 + document["activity_id"]
    instants = {incident.opened_ms, incident.updated_ms, incident.first_seen_ms, incident.last_seen_ms}
    instants |= {ms for window in incident.windows for ms in (window.window.start_ms, window.window.end_ms)}
    times = {value for name, value in entries(document) if name == "time" or name.endswith("_time")}
    assert times <= instants
    assert document["time"] == incident.updated_ms
    addresses = [urlsplit(value) for name, value in entries(document) if name == "src_url"]
    assert all(address.scheme in {"http", "https"} and address.netloc for address in addresses)
    assert captions_that_disagree(document, ocsf_schema()["classes"]["detection_finding"]["attributes"]) == []
    assert (document["activity_name"] == "Close") == (document["status"] == "Resolved")
    assert (document["activity_name"] == "Create") == (finding.cause == "opened") == document["is_alert"]


def captions_that_disagree(value: dict[str, Any], attributes: dict[str, Any]) -> list[str]:
    """Numbers whose caption stands beside them and is another; 99 is for captions of one's own."""
    found = []
    for name, entry in value.items():
        attribute = attributes[name]
        caption = value.get(attribute.get("sibling", ""))
        if caption is not None and entry != 99 and caption != attribute["enum"][str(entry)]["caption"]:
            found.append(f"{name} {entry}: {caption}")
        if attribute.get("object_type") and name != "unmapped":
            inner = ocsf_schema()["objects"][attribute["object_type"]]["attributes"]
            for one in entry if isinstance(entry, list) else [entry]:
                found += captions_that_disagree(one, inner)
    return found


def test_a_caption_that_disagrees_would_be_found() -> None:
    wrong = to_ocsf(STEPS[0]) | {"severity": "Low"}
    attributes = ocsf_schema()["classes"]["detection_finding"]["attributes"]
    assert captions_that_disagree(wrong, attributes) == ["severity_id 4: Low"]


# Size, and JSON at all -----------------------------------------------------------------------------------------------


@few
@given(findings())
@one_of_each
def test_no_event_is_larger_than_its_limit_and_what_was_cut_says_so(finding: Finding) -> None:
    ocsf, ecs = to_ocsf(finding), to_ecs(finding)
    alerts = to_alertmanager(finding)
    for document in (ocsf, ecs, *alerts):
        assert len(encoded(document)) <= EVENT_LIMIT
        assert as_sent(document) == document
    is_cut = len(ocsf.get("evidences", [])) < len(finding.incident.windows)
    assert not is_cut or ocsf["metadata"]["is_truncated"]
    assert ("untruncated_size" in ocsf["metadata"]) == ocsf["metadata"].get("is_truncated", False)
    assert ocsf["metadata"].get("untruncated_size", 33) > EVENT_LIMIT // 1000
    for line in (to_cef(finding), to_leef(finding)):
        assert len(line.encode()) <= LINE_LIMIT
        assert not BREAKING.search(line.replace("\t", ""))


@few
@given(findings())
def test_splunk_is_told_seconds_and_has_the_ocsf_document(finding: Finding) -> None:
    event = as_sent(to_hec(finding, host="h"))
    assert event["event"] == as_sent(to_ocsf(finding))
    assert round(event["time"] * 1000) == finding.incident.updated_ms == event["event"]["time"]
    assert all(isinstance(value, str) for value in event["fields"].values())


# Lines ---------------------------------------------------------------------------------------------------------------


@few
@given(findings())
@one_of_each
def test_a_cef_line_comes_apart_into_what_was_put_in(finding: Finding) -> None:
    header, pairs = parse_cef(to_cef(finding))
    incident = finding.incident
    assert header[:3] == ["0", "Hydrophone project", "Hydrophone"]
    assert header[4:] == [f"hydrophone.{incident.signal}", header[5], header[6]]
    assert int(header[6]) in {3, 5, 8, 10}
    assert pairs["externalId"] == str(incident.id)
    assert pairs["deviceExternalId"] == str(finding.id)
    assert pairs["rt"] == str(incident.updated_ms)
    assert pairs["cs1"] == incident.model
    assert pairs["cn1"] == str(incident.sequence)
    labels = {key for key in pairs if key.endswith("Label")}
    assert labels == {f"{key}Label" for key in pairs if f"{key}Label" in pairs}, "a label for each custom field"


@few
@given(findings())
@one_of_each
def test_a_leef_line_comes_apart_into_what_was_put_in(finding: Finding) -> None:
    header, pairs = parse_leef(to_leef(finding))
    incident = finding.incident
    assert (header[0], header[4]) == ("2.0", f"hydrophone.{incident.signal}")
    assert pairs["incident"] == str(incident.id)
    assert pairs["finding"] == str(finding.id)
    assert pairs["resource"] == incident.model
    assert 1 <= int(pairs["sev"]) <= 10
    assert all(value for value in pairs.values())


def plain(text: str) -> str:
    """What is left of a text where a line allows no control character."""
    return BREAKING.sub(" ", text).strip()


@given(st.text(HOSTILE, max_size=40))
def test_escapes_give_back_every_text(text: str) -> None:
    """Of a title in the header, of a reason among the pairs, where a line's end is one again."""
    step = STEPS[-1]
    closed = step.incident.closed
    assert closed is not None
    assert closed.decision is not None
    decision = closed.decision.model_copy(update={"by": "x", "reason": text})
    incident = step.incident.model_copy(
        update={"title": text, "closed": closed.model_copy(update={"decision": decision})}
    )
    finding = step.model_copy(update={"incident": incident})
    header, pairs = parse_cef(to_cef(finding))
    assert header[5] == plain(text)
    ends = re.compile(r"\r\n?|\n|\x85|\u2028|\u2029")
    assert pairs["reason"] == "\n".join(map(plain, ends.split(f"resolved by x: {text}"))).strip()
    _, leef = parse_leef(to_leef(finding))
    assert leef["reason"] == plain(f"resolved by x: {text}")
    assert leef.get("title", "") == plain(text)


# Syslog --------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.text(HOSTILE, max_size=40), min_size=1, max_size=4), st.text(HOSTILE, max_size=300), st.text(HOSTILE)
)
def test_messages_on_one_connection_come_apart_whatever_they_say(texts: list[str], hostname: str, version: str) -> None:
    sent = [
        syslog_message(text, severity=3, time_ms=0, hostname=hostname, version=version, message_id=hostname)
        for text in texts
    ]
    received = list(unframed(b"".join(map(framed, sent))))
    assert received == sent
    for message, text in zip(received, texts, strict=True):
        priority, fields, data, body = parse_syslog(message)
        assert priority == 13 * 8 + 3
        assert fields[0] == "1970-01-01T00:00:00.000Z"
        assert all(fields)
        assert data["software"] == "Hydrophone"
        assert data.get("swVersion", "") == plain(version)[:32] or len(plain(version).encode()) > 32
        assert body == plain(text)


@pytest.mark.parametrize("letter", ["a", "é", "😀", "\0", "\n"])
def test_a_message_ends_between_characters_at_eight_kilobytes(letter: str) -> None:
    message = syslog_message("b" + letter * 10_000, severity=3, time_ms=0, hostname="h")
    assert len(message) <= MESSAGE_LIMIT
    body = parse_syslog(message)[3]
    assert body == "b" + plain(letter) * (len(body) - 1)
    assert letter.isspace() or letter == "\0" or len(message) > MESSAGE_LIMIT - 4


@few
@given(findings())
@one_of_each
def test_a_finding_as_a_message_is_its_whole_cef_line(finding: Finding) -> None:
    message = to_syslog(finding, hostname="h" * 400, process_id="é" * 200)
    assert len(message) <= MESSAGE_LIMIT
    priority, fields, _, body = parse_syslog(message)
    assert body == to_cef(finding)
    assert 13 * 8 + 2 <= priority <= 13 * 8 + 5
    assert fields[4] == finding.action


# Alertmanager --------------------------------------------------------------------------------------------------------


@few
@given(findings())
@one_of_each
def test_an_alert_ends_with_its_incident_and_with_its_severity(finding: Finding) -> None:
    first, *others = to_alertmanager(finding)
    assert [alert["labels"]["severity"] for alert in others] == [
        severity for severity in [finding.severity_before] if severity
    ]
    for alert in (first, *others):
        assert alert["startsAt"] <= alert["endsAt"]
        assert all(alert["labels"].values())
        assert all(re.fullmatch(r"[a-z_]+", name) for name in alert["labels"] | alert["annotations"])
    is_over = finding.incident.status in {"resolved", "suppressed"}
    now = as_sent(to_ecs(finding))["@timestamp"]
    assert (first["endsAt"] <= now) == is_over or now.startswith("9999")
    assert all(alert["endsAt"] <= now for alert in others)
