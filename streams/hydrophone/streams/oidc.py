"""Tokens for aiokafka's clients by OIDC client credentials. librdkafka fetches its own.

Needs aiokafka; nothing else in the package imports this at its top.
"""

import asyncio
import base64
import json
import ssl
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote_plus, urlencode
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from aiokafka.abc import AbstractTokenProvider

from hydrophone.schemas.errors import BrokerUnavailable
from hydrophone.streams.clock import monotonic_ms
from hydrophone.streams.security import Security, ssl_context

__all__ = ["token_provider", "token_request"]

TIMEOUT_S: Final = 10.0
MOST_ANSWER_BYTES: Final = 1 << 20
EARLY_MS: Final = 30_000
"""A token is renewed so long before it ends: it must still be good when the broker looks at it."""


def token_request(security: Security) -> Request:
    """RFC 6749, sections 2.3.1 (the client in the `Authorization` header, form-encoded) and 4.4 (the grant)."""
    secret = security.client_secret.get_secret_value() if security.client_secret else ""
    pair = f"{quote_plus(security.client_id or '')}:{quote_plus(secret)}"
    fields = {"grant_type": "client_credentials"} | ({"scope": security.scope} if security.scope else {})
    headers = {
        "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return Request(security.token_endpoint or "", urlencode(fields).encode(), headers)  # noqa: S310  # checked there


def token_provider(security: Security) -> AbstractTokenProvider:
    return _Tokens(security)


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """One token at a time, kept until shortly before it ends."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._token, self._good_until_ms = "", 0

    async def token(self) -> str:
        """Raises `BrokerUnavailable` when the endpoint gives none."""
        if monotonic_ms() >= self._good_until_ms:
            self._token, life_s = await asyncio.to_thread(_fetch, self._security)
            self._good_until_ms = monotonic_ms() + max(0, int(life_s * 1000) - EARLY_MS)
        return self._token


def _fetch(security: Security) -> tuple[str, float]:
    context = ssl_context(security) if security.has_tls else ssl.create_default_context()
    opener = build_opener(HTTPSHandler(context=context), ProxyHandler())
    try:
        with opener.open(token_request(security), timeout=TIMEOUT_S) as answer:
            fields: Any = json.loads(answer.read(MOST_ANSWER_BYTES))
        return str(fields["access_token"]), float(fields.get("expires_in", 0))
    except (URLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is an open answer, too
        reason = getattr(error, "reason", type(error).__name__)
        raise BrokerUnavailable(
            f"`token_endpoint` {security.token_endpoint} gave no token: {reason}; check `client_id`, `client_secret` "
            "and `scope`"
        ) from None
