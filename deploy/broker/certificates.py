"""Throw-away certificates for a broker on this machine and its clients, by the `openssl` program.

For tests and for trying things out: the authority's key lies beside what it signed. Standard library only.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Authority", "Identity"]

SAN: Final = "subjectAltName=IP:127.0.0.1,DNS:localhost"


class OpenSslError(RuntimeError):
    """`openssl` is absent or refuses; the message ends with what it said."""


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files: a certificate, its private key (PKCS#8), and both in one file, as Kafka wants a key store."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates that only those who trust `certificate` accept."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _new_key(self._key)
        subject: list[str | Path] = ["-key", self._key, "-subj", f"/CN={name}", "-days", "30"]
        _openssl("req", "-x509", "-new", *subject, "-out", self.certificate)

    def issue(self, name: str, *, is_expired: bool = False, key_password: str | None = None) -> Identity:
        """A certificate with the subject `CN=name`, for this machine's loopback names, good for servers and clients."""
        base = self._folder / f"{name}{'-expired' if is_expired else ''}"
        key, request, certificate = (base.with_name(f"{base.name}.{end}") for end in ("key", "csr", "pem"))
        _new_key(key)
        _openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-addext", SAN, "-out", request)
        signed_by: list[str | Path] = [
            "-CA",
            self.certificate,
            "-CAkey",
            self._key,
            "-CAcreateserial",
            "-copy_extensions",
            "copy",
        ]
        days = "-1" if is_expired else "30"
        _openssl("x509", "-req", "-in", request, *signed_by, "-days", days, "-out", certificate)
        both = base.with_name(f"{base.name}-both.pem")
        both.write_text(key.read_text() + certificate.read_text() + self.certificate.read_text())
        if key_password is not None:
            locked = base.with_name(f"{base.name}-locked.key")
            _openssl("pkcs8", "-topk8", "-in", key, "-out", locked, "-passout", f"pass:{key_password}")
            key = locked
        return Identity(certificate, key, both)


def _new_key(path: Path) -> None:
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)


def _openssl(*arguments: str | Path) -> None:
    command = ["openssl", *map(str, arguments)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise OpenSslError("`openssl` was not found: install it, it makes the certificates") from None
    if done.returncode != 0:
        raise OpenSslError(f"`openssl {arguments[0]}` failed:\n{done.stderr}")
