"""A signature covers key and value, is of a known key, and stands in the header once; all else is refused by reason."""

import pytest

from hydrophone.schemas.errors import SettingsError, SignatureInvalid
from hydrophone.schemas.signature import SIGNATURE_HEADER, Signature, SigningKey, verifier

OLD, NEW = SigningKey("2026-10", b"o" * 16), SigningKey("2026-11", b"n" * 32)
BOTH = {key.key_id: key.secret for key in (OLD, NEW)}


def headers(*values: bytes | None) -> list[tuple[str, bytes | None]]:
    return [("content-type", b"x"), *((SIGNATURE_HEADER, value) for value in values)]


def reason(key: bytes | None, value: bytes, *claims: bytes | None, is_required: bool = True) -> str:
    try:
        verifier(BOTH, is_required=is_required)(key, value, headers(*claims))
    except SignatureInvalid as refusal:
        return refusal.reason
    return "passes"


def test_each_key_in_force_is_good_while_keys_rotate() -> None:
    assert reason(b"k", b"v", OLD.sign(b"k", b"v")) == reason(b"k", b"v", NEW.sign(b"k", b"v")) == "passes"


def test_key_and_value_are_covered_and_told_apart() -> None:
    signature = NEW.sign(b"ab", b"c")
    for key, value in ((b"a", b"bc"), (b"abc", b""), (b"ab", b"d"), (None, b"abc")):
        assert reason(key, value, signature) == "bad_signature"


def test_a_signature_of_another_key_under_this_keys_name_is_bad() -> None:
    assert reason(b"k", b"v", SigningKey(NEW.key_id, OLD.secret).sign(b"k", b"v")) == "bad_signature"


def test_an_unknown_key_is_named() -> None:
    stranger = SigningKey("stranger", b"s" * 16).sign(b"k", b"v")
    with pytest.raises(SignatureInvalid, match="unknown_key: signed with key `stranger`"):
        verifier(BOTH, is_required=False)(b"k", b"v", headers(stranger))


def test_unsigned_is_refused_where_signatures_are_required_and_only_there() -> None:
    assert reason(b"k", b"v") == "unsigned"
    assert reason(b"k", b"v", is_required=False) == "passes"


@pytest.mark.parametrize("is_required", [True, False])
def test_two_signatures_or_none_that_reads_are_bad(is_required: bool) -> None:
    good = NEW.sign(b"k", b"v")
    for claims in ((good, good), (None,), (b"",), (good + b"\n",), (good.upper(),), (b"v2" + good[2:],), (good[:-1],)):
        assert reason(b"k", b"v", *claims, is_required=is_required) == "bad_signature"


def test_a_header_is_parsed_into_its_claim() -> None:
    assert Signature.parse(b"v1;a.b-c_1;" + b"0" * 64) == Signature("a.b-c_1", b"0" * 64)


def test_a_secret_is_not_shown_and_not_short() -> None:
    assert "nnnn" not in f"{NEW!r}{NEW}"
    with pytest.raises(SettingsError, match="at least 16 bytes; got 5"):
        SigningKey("a", b"short")
    with pytest.raises(SettingsError, match="`key_id`"):
        SigningKey("a;b", b"s" * 16)
