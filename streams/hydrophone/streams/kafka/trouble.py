"""Why a broker is silent. librdkafka retries a failed handshake for ever and tells the caller of a time-out; the cause
goes to its error callback. Nothing here is retried or raised in the background.
"""

from typing import Final

from confluent_kafka import KafkaError

from hydrophone.schemas.errors import BrokerUnavailable, ConfigurationError

__all__ = ["DENIED", "UNREACHABLE", "Trouble", "check_access", "denied", "explained", "refused_settings"]

UNREACHABLE: Final = frozenset(
    {"_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_TRANSPORT", "NETWORK_EXCEPTION", "REQUEST_TIMED_OUT"}
)
"""Error names that mean silence. Those with an underscore are the client's own, not the broker's."""

DENIED: Final = {
    "TOPIC_AUTHORIZATION_FAILED": "topic",
    "GROUP_AUTHORIZATION_FAILED": "group",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "transactional id",
    "CLUSTER_AUTHORIZATION_FAILED": "cluster",
}
"""The broker knows who asks, and says no: to what kind of resource."""

REFUSED_BY_TLS: Final = "SSL"
"""In the text of a lost connection: TLS 1.3 tells a client that its certificate is refused after the handshake."""

REMEDIES: Final = {
    "_SSL": "check `security.ca`, that our own certificate is valid and trusted there, and that the port speaks TLS",
    "_AUTHENTICATION": "check `security.mechanism`, `security.username`, `security.password` or the token's fields",
    "SASL_AUTHENTICATION_FAILED": "check `security.username` and `security.password`",
}


class Trouble:
    """An `error_cb` that remembers the first handshake that failed; what follows is mostly its echo."""

    def __init__(self) -> None:
        self.cause: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        is_tls = error.name() == "_TRANSPORT" and REFUSED_BY_TLS in error.str()
        if self.cause is None and (is_tls or error.name() in REMEDIES):
            self.cause = error


def explained(error: KafkaError, where: str, trouble: Trouble | None = None) -> Exception:
    """What to raise for a request that failed: wait for the broker, or change what was set up."""
    cause = trouble.cause if trouble is not None else None
    if error.name() in UNREACHABLE and cause is not None:
        remedy = REMEDIES.get(cause.name(), REMEDIES["_SSL"])
        return ConfigurationError(
            f"the broker at `{where}` and this client do not trust each other: {cause.str()}; {remedy}"
        )
    if error.name() in UNREACHABLE or error.retriable():
        return BrokerUnavailable(
            f"no answer from the broker at `{where}`: {error.str()}; is it up, and does that port speak what "
            "`security.protocol` says?"
        )
    if error.name() == "_INVALID_ARG":
        return refused_settings(error)
    return ConfigurationError(f"the broker at `{where}` refused: {error.name()}, {error.str()}")


def refused_settings(error: KafkaError) -> ConfigurationError:
    """librdkafka does not begin with these properties. It names the property, never its value."""
    remedy = "; the files must be readable PEM and belong together, and `key_password` must open `key`"
    is_file = "ssl." in error.str()
    return ConfigurationError(f"the Kafka client refuses its settings: {error.str()}{remedy if is_file else ''}")


def check_access(error: KafkaError, *, topic: str, group: str) -> None:
    """Raise if a consumer of this topic in this group is told no."""
    if error.name() in DENIED:
        raise denied(error, topic if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED else group)


def denied(error: KafkaError, name: str) -> ConfigurationError:
    """The broker knows who asks and says no to a topic, a group or a transactional id of this name."""
    kind = DENIED.get(error.name(), "resource")
    return ConfigurationError(
        f"the broker denies access to {kind} `{name}`: {error.str()}; grant what "
        "`hydrophone topics acls --role ...` prints"
    )
