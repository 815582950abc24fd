"""What each role may do: declared once, least, and in the words of Kafka's own program."""

import json
from pathlib import Path

import pytest
from tests.support.processor import cli

from hydrophone.schemas.errors import SettingsError
from hydrophone.streams.acls import READER_GROUP, ROLES, Acl, acls, kafka_acls_line
from hydrophone.streams.topics import ACTIVATIONS, TOPICS


def test_a_publisher_writes_frames_and_nothing_else() -> None:
    assert acls("publisher", "User:p") == (Acl("User:p", "Write", "topic", "hydrophone.activations.v1"),)


def test_only_publishers_write_frames_and_only_the_administrator_announces_references() -> None:
    writers = {role: {a.name for a in acls(role, "User:x") if a.operation == "Write"} for role in ROLES}
    assert [role for role in ROLES if ACTIVATIONS.full_name() in writers[role]] == ["publisher"]
    assert [role for role in ROLES if "hydrophone.references.v1" in writers[role]] == ["administrator"]


@pytest.mark.parametrize("role", ROLES)
def test_no_role_may_do_anything_to_what_is_not_ours(role: str) -> None:
    names = {topic.full_name("mine.") for topic in TOPICS} | {"g", "g-", READER_GROUP}
    for acl in acls(role, "User:x", prefix="mine.", group="g"):  # type: ignore[arg-type]
        assert acl.name in names
        assert not acl.is_prefix or acl.resource == "transactional_id" or acl.operation == "Describe"


def test_a_line_is_safe_in_a_shell() -> None:
    acl = Acl("User:CN=a;rm -rf /", "Write", "transactional_id", "g-", is_prefix=True)
    assert kafka_acls_line(acl, bootstrap="b:1") == (
        "kafka-acls.sh --bootstrap-server b:1 --add --allow-principal 'User:CN=a;rm -rf /' --operation Write "
        "--transactional-id g- --resource-pattern-type prefixed"
    )


@pytest.mark.parametrize("principal", ["", "somebody", "User:", "User: x"])
def test_a_principal_has_a_type_and_a_name(principal: str) -> None:
    with pytest.raises(SettingsError, match="`User:name`"):
        acls("publisher", principal)


def test_the_command_prints_what_is_declared(tmp_path: Path) -> None:
    asked = ("topics", "acls", "--role", "processor", "--principal", "User:x", "--group", "g", "--json")
    printed = cli(*asked, folder=tmp_path)
    assert printed.returncode == 0, printed.stderr
    lines = [json.loads(line) for line in printed.stdout.splitlines()]
    assert lines == [acl.as_json() for acl in acls("processor", "User:x", group="g")]
    assert cli("topics", "acls", "--role", "king", "--principal", "User:x", folder=tmp_path).returncode == 3
