"""Where signatures are required, a record without a right one changes nothing but the count of dead letters."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.test_step import (
    BATCH_RULES,
    RULES,
    Driver,
    Sent,
    anything,
    assert_balanced,
    assert_same_as_batch,
    log_of,
    scripts,
    without_idle,
)
from tests.support.batch import batch_of

from hydrophone.schemas.signature import SIGNATURE_HEADER, SigningKey, verifier
from hydrophone.streams.record import Record

OLD, NEW = SigningKey("old", b"o" * 16), SigningKey("new", b"n" * 16)
STRANGER, THIEF = SigningKey("stranger", b"s" * 16), SigningKey("new", b"t" * 16)
SIGNED_RULES: Final = replace(RULES, verify=verifier({key.key_id: key.secret for key in (OLD, NEW)}, is_required=True))
FORGERIES: Final = {
    "unsigned": "unsigned",
    "stranger": "unknown_key",
    "thief": "bad_signature",
    "another record's": "bad_signature",
    "garbage": "bad_signature",
}


def signed(record: Record, kind: str) -> Record:
    key, value = record.key or b"", record.value or b""
    header = {
        "old": OLD.sign(key, value),
        "new": NEW.sign(key, value),
        "stranger": STRANGER.sign(key, value),
        "thief": THIEF.sign(key, value),
        "another record's": NEW.sign(key, value + b"\0"),
        "garbage": b"v1;new;",
    }.get(kind)
    return record if header is None else record._replace(headers=((SIGNATURE_HEADER, header),))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(anything, st.sampled_from(["old", "new", *FORGERIES])), max_size=30), scripts)
def test_a_forged_record_never_reaches_a_window(sent: list[tuple[Sent, str]], script: Sequence[str]) -> None:
    kinds = [*(kind for _, kind in sent), "new"]
    plain = log_of([plan for plan, _ in sent])
    log = [signed(record, kind) for record, kind in zip(plain, kinds, strict=True)]
    refused = {
        record.offset: FORGERIES[kind]
        for record, kind in zip(plain, kinds, strict=True)
        if kind in FORGERIES and record.value is not None
    }
    known = [record._replace(value=b"") if record.offset in refused else record for record in plain]
    batch = batch_of(known, BATCH_RULES)
    batch.dead |= {(0, offset): reason for offset, reason in refused.items()}
    driver = Driver(log, rules=SIGNED_RULES)

    driver.run(without_idle(script))

    assert_same_as_batch(driver.told, batch)
    assert_balanced(driver.accounts)
    assert driver.accounts.records == len(log)
    assert driver.accounts.dead_lettered == len(batch.dead)
