"""A frame's signature in its record's headers: who has no key cannot put rows into a window.

    hydrophone-signature: v1;<key id>;<64 hexadecimal digits>

The digits are HMAC-SHA-256 (RFC 2104) over the record's key and value, each behind its length. Which keys are in force,
and what becomes of a record that is refused, does not live here.
"""

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hydrophone.schemas.errors import SettingsError, SignatureInvalid

__all__ = [
    "KEY_ID_PATTERN",
    "MIN_SECRET_BYTES",
    "SIGNATURE_HEADER",
    "Signature",
    "SigningKey",
    "Verify",
    "verifier",
]

SIGNATURE_HEADER: Final = "hydrophone-signature"
KEY_ID_PATTERN: Final = r"^[A-Za-z0-9._-]{1,64}$"
MIN_SECRET_BYTES: Final = 16

DOMAIN: Final = b"hydrophone-signature;v1\0"
"""Begins what is signed, so that a secret that signs something else, too, never signs a frame by accident."""

FORM: Final = re.compile(rb"v1;([A-Za-z0-9._-]{1,64});([0-9a-f]{64})")

Headers = Sequence[tuple[str, bytes | None]]
Verify = Callable[[bytes | None, bytes, Headers], None]
"""Key, value and headers of a record; raises `SignatureInvalid`, returns nothing."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One secret of at least 16 bytes, and the name it goes by in headers. Raises `SettingsError`."""

    key_id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(KEY_ID_PATTERN, self.key_id):
            raise SettingsError("`key_id` must be 1 to 64 letters, digits or any of . _ -")
        if len(self.secret) < MIN_SECRET_BYTES:
            raise SettingsError(f"`secret` must have at least {MIN_SECRET_BYTES} bytes; got {len(self.secret)}")

    def sign(self, key: bytes, value: bytes) -> bytes:
        """The header's value."""
        return b"v1;%b;%b" % (self.key_id.encode(), _digits(self.secret, key, value))


@dataclass(frozen=True, slots=True)
class Signature:
    """What a header claims. Nothing is checked yet."""

    key_id: str
    digits: bytes

    @classmethod
    def parse(cls, text: bytes) -> "Signature":
        """Raises `SignatureInvalid` (`bad_signature`)."""
        found = FORM.fullmatch(text)
        if found is None:
            raise SignatureInvalid(
                "bad_signature", f"a signature reads `v1;<key id>;<64 hex digits>`; got {text!r:.80}"
            )
        return cls(found[1].decode(), found[2])


def verifier(secrets: Mapping[str, bytes], *, is_required: bool) -> Verify:
    """A check of records against these secrets by key id: `unsigned`, `unknown_key` or `bad_signature`.

    Not required: a record without the header passes; one with it must bear a right one. That tells publishers that
    are set up wrongly before signatures are required, and stops nobody, for whoever forges can leave the header out.
    """
    known = dict(secrets)

    def verify(key: bytes | None, value: bytes, headers: Headers) -> None:
        claims = [text for name, text in headers if name == SIGNATURE_HEADER]
        if not claims:
            if is_required:
                raise SignatureInvalid("unsigned", f"a frame bears the header `{SIGNATURE_HEADER}`; got none")
            return
        if len(claims) > 1:
            raise SignatureInvalid("bad_signature", f"a frame bears one `{SIGNATURE_HEADER}`; got {len(claims)}")
        claim = Signature.parse(claims[0] or b"")
        secret = known.get(claim.key_id)
        if secret is None:
            raise SignatureInvalid("unknown_key", f"signed with key `{claim.key_id}`, which is not in `signing_keys`")
        if not hmac.compare_digest(_digits(secret, key or b"", value), claim.digits):
            raise SignatureInvalid("bad_signature", f"key `{claim.key_id}` did not sign this key and value")

    return verify


def _digits(secret: bytes, key: bytes, value: bytes) -> bytes:
    """Without copying the value: it may be a megabyte."""
    mac = hmac.new(secret, DOMAIN, "sha256")
    for part in (key, value):
        mac.update(len(part).to_bytes(8, "big"))
        mac.update(part)
    return mac.hexdigest().encode()
