"""How processors share partitions: which rebalance protocol the brokers speak, and what a member says of itself.

The `consumer` protocol (KIP-848, Kafka 4.0) moves single partitions without the others stopping and keeps time-outs at
the broker; `classic` with cooperative-sticky assignment is what older brokers have. Both hand callbacks incremental
assignments, and in both it is the transaction that fences a worker which has lost its partitions, not its membership.
"""

import logging
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there, re-exported without saying so
    AdminClient,
    ConfigResource,
    ResourceType,
)

from hydrophone.schemas.errors import BrokerUnavailable, Fenced, TopicMissing
from hydrophone.streams.bounded_log import BoundedLog
from hydrophone.streams.kafka.clients import Properties
from hydrophone.streams.kafka.trouble import check_access

__all__ = ["GroupProtocol", "check_member", "choose_protocol", "membership", "protocol_of"]

log = logging.getLogger("hydrophone")

GroupProtocol = Literal["classic", "consumer"]

PROTOCOLS_CONFIG: Final = "group.coordinator.rebalance.protocols"
"""Since Kafka 3.7 the broker's own list of what it speaks."""

CLASSIC_PROPERTIES: Final = frozenset(
    {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"}
)
"""What only `classic` members may set; the client refuses them for the other."""

TIMEOUT_S: Final = 10.0


def membership(protocol: GroupProtocol, instance_id: str | None) -> dict[str, Any]:
    """Client properties of a member. With a name of its own it is static (KIP-345): a restart within the session
    time-out gets the same partitions back and nobody else notices."""
    static = {"group.instance.id": instance_id} if instance_id else {}
    if protocol == "consumer":  # session and heartbeat are the broker's to set
        return {"group.protocol": "consumer", **static}
    return {
        "group.protocol": "classic",
        # A killed worker's partitions are somebody else's after ten seconds; those of a named one wait for its return.
        "session.timeout.ms": 45_000 if instance_id else 10_000,
        "partition.assignment.strategy": "cooperative-sticky",  # a rebalance stops only what moves
        **static,
    }


def choose_protocol(kafka: Properties, instance_id: str | None) -> GroupProtocol:
    """The newest the broker has; `classic` for a named member.

    Measured with librdkafka 2.16 on Kafka 4.1: a named member of the `consumer` protocol that drains loses its
    partitions at once, and one that is killed is refused until its session has timed out (45 s). In `classic` the first
    gets them back unnoticed, and the second its place at once.
    """
    return "classic" if instance_id else protocol_of(kafka)


def check_member(error: KafkaError, *, topic: str, group: str) -> None:
    """Raise if this is what no member gets over: the topic is gone, its place is taken, or it is told no."""
    code = error.code()
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):  # noqa: SLF001  # documented, as below
        raise TopicMissing(f"a topic is gone: {error.str()}; create it with `hydrophone topics create`")
    if _is_instance_taken(error):
        raise Fenced(
            "`--instance-id` is held by another process, or by one that was killed less than the group's session "
            f"time-out ago: {error.str()}"
        )
    if code == KafkaError._FATAL or error.fatal():  # noqa: SLF001  # takes no more part, for ever
        raise BrokerUnavailable(error.str())
    check_access(error, topic=topic, group=group)


def _is_instance_taken(error: KafkaError) -> bool:
    """Another member has this instance id. The client wraps both codes in an error of its own, and keeps the words."""
    taken = (KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID)
    is_fatal = error.code() == KafkaError._FATAL  # noqa: SLF001  # documented constant
    return error.code() in taken or (is_fatal and "instance" in error.str())


def protocol_of(kafka: Properties) -> GroupProtocol:
    """`consumer` where a broker says that it speaks it, else `classic`: also where it may not be asked, and where a
    property was set that only `classic` knows."""
    if CLASSIC_PROPERTIES & kafka.keys():
        return "classic"
    try:
        admin = AdminClient({**kafka}, logger=BoundedLog(log))
        brokers = admin.list_topics(timeout=TIMEOUT_S).brokers
        asked = [ConfigResource(ResourceType.BROKER, str(number)) for number in sorted(brokers)[:1]]
        answers = [future.result(TIMEOUT_S) for future in admin.describe_configs(asked).values()]
    except (KafkaException, TimeoutError) as error:
        log.info("which group protocols the broker has cannot be asked, so `classic` is used: %s", error)
        return "classic"
    spoken = {entry.value for answer in answers for name, entry in answer.items() if name == PROTOCOLS_CONFIG}
    return "consumer" if any("consumer" in (value or "").split(",") for value in spoken) else "classic"
