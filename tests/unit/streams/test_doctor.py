"""What `doctor` says about whom the broker lets in and whose frames count; the broker itself is asked elsewhere."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from hydrophone.streams.doctor import Finding, examine
from hydrophone.streams.settings import load_settings

SCRAM = {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": "u", "password": "p"}
KEYS = {"signatures": "require", "signing_keys": {"a": "sixteen bytes..."}}


def findings(what: str, **flags: Any) -> Finding:
    before_the_broker = islice(examine(load_settings(**flags)), 12)
    return next(finding for finding in before_the_broker if finding.what == what)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_connection_anybody_can_read_is_a_warning() -> None:
    assert findings("connection").state == "warning"
    in_the_clear = SCRAM | {"protocol": "SASL_PLAINTEXT", "allow_plaintext": True}
    assert findings("connection", security=in_the_clear).state == "warning"
    assert findings("connection", security=SCRAM) == Finding("connection", "ok", "SASL_SSL")
    assert findings("connection", kafka={"security.protocol": "SSL"}).state == "ok"


def test_frames_that_anybody_can_write_are_a_warning() -> None:
    assert findings("signatures").state == "warning"
    assert findings("signatures", **KEYS | {"signatures": "accept"}).state == "warning"
    assert findings("signatures", **KEYS) == Finding("signatures", "ok", "required, by keys a")
