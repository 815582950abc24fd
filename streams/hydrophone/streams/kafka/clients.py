"""Client properties Hydrophone insists on, each with its reason; what else the user sets passes through untouched."""

import logging
import secrets
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

from confluent_kafka import Consumer, KafkaException, Producer

from hydrophone.streams.acls import READER_GROUP
from hydrophone.streams.bounded_log import BoundedLog
from hydrophone.streams.kafka.trouble import refused_settings

__all__ = ["Properties", "consumer", "producer", "reader", "transactional_id"]

Properties = Mapping[str, Any]
"""librdkafka client properties; `bootstrap.servers` at least."""

C = TypeVar("C", Consumer, Producer)

log = logging.getLogger("hydrophone")

TRANSACTION_TIMEOUT_MS: Final = 15_000
"""How long a dead worker's open transaction can hold back readers of committed records."""


def consumer(kafka: Properties, *, group: str, client_id: str, member: Properties) -> Consumer:
    """A member of the processors' group; `member` is what `groups.membership` gives."""
    return _make(
        Consumer,
        {
            **member,
            "queued.max.messages.kbytes": 65_536,
            "fetch.message.max.bytes": 2_097_152,
            **kafka,
            "group.id": group,
            "client.id": client_id,
            "enable.auto.commit": False,  # offsets travel in the transaction with the outputs
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # a hole in the log is announced, never skipped
            "enable.partition.eof": True,  # the end of a partition is what makes it idle
            "isolation.level": "read_committed",  # also makes offset fetches wait for open transactions (KIP-447)
        },
    )


def producer(kafka: Properties, *, transactional_id: str | None) -> Producer:
    """Transactional where an id is given, else idempotent."""
    transactional = {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
    }
    # A producer that bootstraps anew can wait for ever for a group coordinator it has forgotten (librdkafka #5511).
    steady = {"metadata.recovery.strategy": "none"} if transactional_id else {"delivery.timeout.ms": 30_000}
    return _make(
        Producer,
        {
            "linger.ms": 5,
            "message.max.bytes": 2_097_176,  # a dead letter carries its whole record and headers
            **steady,
            **kafka,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # librdkafka's default sends a key elsewhere than Java and aiokafka do
            **(transactional if transactional_id else {}),
        },
    )


def reader(
    kafka: Properties, *, isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
) -> Consumer:
    """For reading whole partitions by assignment, outside any group."""
    return _make(
        Consumer,
        {
            **kafka,
            "group.id": f"{READER_GROUP}{secrets.token_hex(4)}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "auto.offset.reset": "earliest",
        },
    )


def transactional_id(group: str, instance_id: str | None) -> str:
    """Stable for a named instance, so that its successor aborts what it left open; else unique, so that two workers
    on one host do not fence each other."""
    return f"{group}-{instance_id or secrets.token_hex(8)}"


def _make(kind: type[C], properties: dict[str, Any]) -> C:
    try:
        return kind(properties, logger=BoundedLog(log))
    except KafkaException as error:
        raise refused_settings(error.args[0]) from None
