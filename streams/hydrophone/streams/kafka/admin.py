"""Creates topics, and says what the broker really has. What they should be is declared in `streams/topics.py`.

Nothing here changes a topic that exists: adding partitions moves keys, and that is a person's decision.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there, re-exported without saying so
    AclOperation,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from hydrophone.schemas.errors import BrokerUnavailable, TopicMissing
from hydrophone.streams.bounded_log import BoundedLog
from hydrophone.streams.kafka.trouble import DENIED, UNREACHABLE, Trouble, explained
from hydrophone.streams.topics import DEFAULT_PREFIX, TOPICS, Topic, topic_configs, with_partitions

__all__ = [
    "CLUSTER_DEFAULT",
    "DESCRIBED_CONFIGS",
    "TopicCreation",
    "TopicDescription",
    "create_topics",
    "describe_topics",
    "require_topics",
    "unwritable_topics",
]

log = logging.getLogger("hydrophone")

KafkaProperties = Mapping[str, Any]
"""Client properties as librdkafka names them; `bootstrap.servers` at least."""

CLUSTER_DEFAULT: Final = -1
"""Replication factor: whatever the cluster's owner set as the default."""

POLL_S: Final = 0.05
HANDSHAKE_S: Final = 3.0

DESCRIBED_CONFIGS: Final = ("retention.ms", "cleanup.policy", "message.timestamp.type", "max.message.bytes")


@dataclass(frozen=True, slots=True)
class TopicCreation:
    """What became of one topic. `partitions` is what it has, `wanted` what the table says."""

    name: str
    status: Literal["created", "existing", "mismatched"]
    partitions: int
    wanted: int
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the broker has it; `configs` holds the `DESCRIBED_CONFIGS`, defaults included."""

    name: str
    partitions: int
    replication_factor: int
    configs: Mapping[str, str]


def create_topics(
    kafka: KafkaProperties,
    topics: Iterable[Topic] = TOPICS,
    *,
    prefix: str = DEFAULT_PREFIX,
    partitions: int | None = None,
    replication_factor: int = CLUSTER_DEFAULT,
    timeout_s: float = 30.0,
) -> tuple[TopicCreation, ...]:
    """Create what is absent and leave the rest alone; calling it again changes nothing.

    On return every topic can be used: a broker learns of a new one a moment after the controller has agreed to it.

    `partitions` is for `activations` and the topics that must have as many. A topic that exists with another number
    is reported as `mismatched` with a remedy, never altered.
    """
    declared = tuple(topics) if partitions is None else with_partitions(topics, partitions)
    with _client(kafka, timeout_s) as client:
        present = client.list_topics(timeout=timeout_s).topics
        absent = [topic for topic in declared if topic.full_name(prefix) not in present]
        created = _create(client, [_new_topic(topic, prefix, replication_factor) for topic in absent], timeout_s)
        known = _await_usable(client, [topic.full_name(prefix) for topic in declared], timeout_s)
    return tuple(_outcome(topic, topic.full_name(prefix), created, known) for topic in declared)


def describe_topics(
    kafka: KafkaProperties, names: Iterable[str], *, timeout_s: float = 30.0
) -> dict[str, TopicDescription]:
    """The topics of these full names that exist; one that does not is left out."""
    with _client(kafka, timeout_s) as client:
        known = client.list_topics(timeout=timeout_s).topics
        present = [name for name in names if name in known]
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in present]
        answers = client.describe_configs(resources, request_timeout=timeout_s) if resources else {}
        configs = {resource.name: answer.result() for resource, answer in answers.items()}
    return {name: _description(known[name], configs[name]) for name in present}


def require_topics(
    kafka: KafkaProperties, names: Iterable[str], *, timeout_s: float = 30.0
) -> dict[str, TopicDescription]:
    """As `describe_topics`, but raise `TopicMissing` that names every absent one."""
    wanted = tuple(names)
    found = describe_topics(kafka, wanted, timeout_s=timeout_s)
    if absent := [name for name in wanted if name not in found]:
        listed = ", ".join(f"`{name}`" for name in absent)
        raise TopicMissing(
            f"{listed} must exist before anything starts: run `hydrophone topics create`; a broker with ACLs also "
            "hides what one may not see: grant what `hydrophone topics acls` prints"
        )
    return found


def unwritable_topics(kafka: KafkaProperties, names: Iterable[str], *, timeout_s: float = 30.0) -> tuple[str, ...]:
    """Those of these topics that whoever asks may not write, or not even see."""
    with _client(kafka, timeout_s) as client:
        wanted = TopicCollection(list(names))
        answers = client.describe_topics(wanted, include_authorized_operations=True, request_timeout=timeout_s)
        return tuple(sorted(name for name, answer in answers.items() if not _may_write(answer)))


def _may_write(answer: Future[Any]) -> bool:
    try:
        operations = answer.result().authorized_operations
    except KafkaException as error:
        if error.args[0].name() in DENIED:
            return False
        raise
    return operations is None or AclOperation.WRITE in operations


def _new_topic(topic: Topic, prefix: str, replication_factor: int) -> NewTopic:
    return NewTopic(
        topic.full_name(prefix),
        num_partitions=topic.partitions,
        replication_factor=replication_factor,
        config=topic_configs(topic, replication_factor=replication_factor),
    )


def _create(client: AdminClient, topics: list[NewTopic], timeout_s: float) -> frozenset[str]:
    """The names of those that this call created."""
    if not topics:
        return frozenset()
    answers = client.create_topics(topics, operation_timeout=timeout_s, request_timeout=timeout_s)
    return frozenset(name for name, answer in answers.items() if _was_created(answer))


def _was_created(answer: Future[None]) -> bool:
    try:
        answer.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise
    return True


def _await_usable(client: AdminClient, names: list[str], timeout_s: float) -> Mapping[str, TopicMetadata]:
    """The cluster's topics, once it knows all of `names` and a leader for each of their partitions."""
    for _ in range(max(1, int(timeout_s / POLL_S))):
        known = client.list_topics(timeout=timeout_s).topics
        if all(name in known and _has_leaders(known[name]) for name in names):
            return known
        time.sleep(POLL_S)
    raise BrokerUnavailable(f"not every topic has a leader after {timeout_s:g} s: are all brokers up?")


def _has_leaders(topic: TopicMetadata) -> bool:
    return all(partition.leader >= 0 for partition in topic.partitions.values())


def _outcome(topic: Topic, name: str, created: frozenset[str], known: Mapping[str, TopicMetadata]) -> TopicCreation:
    if name in created:
        return TopicCreation(name, "created", topic.partitions, topic.partitions)
    partitions = len(known[name].partitions)
    if partitions == topic.partitions:
        return TopicCreation(name, "existing", partitions, topic.partitions)
    return TopicCreation(name, "mismatched", partitions, topic.partitions, _remedy(topic, name, partitions))


def _remedy(topic: Topic, name: str, partitions: int) -> str:
    if topic.is_copartitioned:
        return (
            f"`{name}` has {partitions} partitions, not {topic.partitions}: pass `partitions={partitions}` so that "
            "all topics that follow `activations` have as many, or drain the processors, delete them and create anew"
        )
    return f"`{name}` has {partitions} partitions, not {topic.partitions}: harmless, keep it as it is"


def _description(metadata: TopicMetadata, configs: Mapping[str, Any]) -> TopicDescription:
    replicas = [len(partition.replicas) for partition in metadata.partitions.values()]
    return TopicDescription(
        name=str(metadata.topic),
        partitions=len(replicas),
        replication_factor=min(replicas, default=0),
        configs={name: str(configs[name].value) for name in DESCRIBED_CONFIGS if name in configs},
    )


@contextmanager
def _client(kafka: KafkaProperties, timeout_s: float) -> Iterator[AdminClient]:
    """Connected. Sorts what the client raises by remedy: wait for the broker, or change what was asked of it."""
    trouble, client = Trouble(), None
    try:
        client = AdminClient(dict(kafka) | {"error_cb": trouble}, logger=BoundedLog(log))
        _connect(client, trouble, timeout_s)
        yield client
    except KafkaException as error:
        if client is not None:
            client.poll(0)  # serves the callback
        raise explained(error.args[0], str(kafka.get("bootstrap.servers")), trouble) from error


def _connect(client: AdminClient, trouble: Trouble, timeout_s: float) -> None:
    """The first answer of a broker. The client would try a handshake that was refused until its time is over; who is
    not let in twice will not be."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = deadline - time.monotonic()
        try:
            client.list_topics(timeout=min(HANDSHAKE_S, max(left, POLL_S)))
        except KafkaException as error:
            client.poll(0)  # serves the callback
            if trouble.cause is not None or left <= HANDSHAKE_S or error.args[0].name() not in UNREACHABLE:
                raise
        else:
            return
