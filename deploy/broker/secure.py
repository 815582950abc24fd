"""A broker that asks who is there: SASL_SSL with SCRAM, TLS with client certificates, OAUTHBEARER, and ACLs.

For tests and for trying things out. Its plain listener stays, on the loopback address, for whoever sets it up: an
unnamed client there is the super user. The other listeners let in nobody without a name, and nobody do anything that
an ACL does not say. Standard library only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from deploy.broker.certificates import Authority, Identity
from deploy.broker.kraft import HOST, KraftBroker, free_ports

__all__ = ["SecureBroker"]

MODULES: Final = "org.apache.kafka.common.security"


class SecureBroker(KraftBroker):
    """A `KraftBroker` with three more listeners; their addresses are `scram`, `mtls` and `oauth`.

    `users` are names and passwords for SCRAM-SHA-512 and SCRAM-SHA-256. A client certificate `CN=x` is `User:x`. The
    OAUTHBEARER listener takes unsecured tokens (`"alg": "none"`): it shows that a client fetched one, and no more.
    """

    def __init__(self, users: Mapping[str, str], overrides: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(None, **options)
        ports = free_ports(without=self._port)
        listeners = {name: f"{HOST}:{next(ports)}" for name in ("SASL_SSL", "SSL", "OAUTH")}
        self.scram, self.mtls, self.oauth = listeners.values()
        self._folder = self.directory / "certificates"
        self._authority: Authority | None = None
        self._properties |= _properties(self._properties, listeners, self._folder) | dict(overrides or {})
        self._format_options = tuple(
            text
            for user, password in users.items()
            for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256")
            for text in ("--add-scram", f"{mechanism}=[name={user},password={password}]")
        )

    @property
    def ca(self) -> Path:
        """What clients must trust."""
        return self._certified().certificate

    def identity(self, name: str, *, is_expired: bool = False, key_password: str | None = None) -> Identity:
        """A client's certificate from the authority that the broker trusts."""
        return self._certified().issue(name, is_expired=is_expired, key_password=key_password)

    def start(self) -> None:
        self._certified()
        super().start()

    def _certified(self) -> Authority:
        if self._authority is None:
            self._authority = Authority(self._folder)
            self._authority.issue("broker")
        return self._authority


def _properties(plain: Mapping[str, str], listeners: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What the secured listeners add; the plain one and the controller's keep theirs."""
    more = "".join(f",{name}://{address}" for name, address in listeners.items())
    protocols = ",SASL_SSL:SASL_SSL,SSL:SSL,OAUTH:SASL_PLAINTEXT"
    scram = f"{MODULES}.scram.ScramLoginModule required;"
    oauth = f'{MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
    return {
        "listeners": plain["listeners"] + more,
        "advertised.listeners": plain["advertised.listeners"] + more,
        "listener.security.protocol.map": plain["listener.security.protocol.map"] + protocols,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker-both.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "authority.pem"),
        "listener.name.ssl.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^CN=([^,]+)$/$1/,DEFAULT",
        "listener.name.sasl_ssl.sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": oauth,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
