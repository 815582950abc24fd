"""What each role may do on the broker, declared once, and no more than it needs. Pure: nothing here talks to a broker.

publisher       an inference service: writes frames
processor       `hydrophone process`
subscriber      whoever reads scores, verdicts, alerts and events: `hydrophone tail`, a SIEM
recorder        reads frames: `hydrophone record`
administrator   `hydrophone topics create`, `hydrophone reference announce`, `hydrophone shards`,
                `hydrophone doctor`
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from hydrophone.schemas.errors import SettingsError
from hydrophone.streams import topics
from hydrophone.streams.topics import DEFAULT_PREFIX, Topic

__all__ = ["READER_GROUP", "ROLES", "Acl", "Role", "acls", "kafka_acls_line"]

Role = Literal["publisher", "processor", "subscriber", "recorder", "administrator"]
ROLES: Final[tuple[Role, ...]] = ("publisher", "processor", "subscriber", "recorder", "administrator")

Resource = Literal["topic", "group", "transactional_id"]
Operation = Literal["Read", "Write", "Create", "Describe", "DescribeConfigs"]

READ_BY_PROCESSOR: Final = (
    topics.ACTIVATIONS,
    topics.REFERENCES,
    topics.STATE,
    topics.PARTIALS,
    topics.SNAPSHOTS,
    topics.CONTROL,
)
WRITTEN_BY_PROCESSOR: Final = (
    topics.SCORES,
    topics.VERDICTS,
    topics.ALERTS,
    topics.EVENTS,
    topics.LATE,
    topics.DEADLETTER,
    topics.STATE,
    topics.PARTIALS,
    topics.SNAPSHOTS,
)
READ_BY_SUBSCRIBER: Final = (topics.SCORES, topics.VERDICTS, topics.ALERTS, topics.EVENTS)

READER_GROUP: Final = "hydrophone-reader-"
"""Readers are in no group and commit nothing; their client asks who would coordinate one all the same."""

PRINCIPAL: Final = re.compile(r"[A-Za-z]+:[^\s]+")


@dataclass(frozen=True, slots=True)
class Acl:
    """`principal` may do `operation` on the resource, from any host. Read and Write include Describe."""

    principal: str
    operation: Operation
    resource: Resource
    name: str
    is_prefix: bool = False

    def as_json(self) -> dict[str, Any]:
        fields = asdict(self)
        fields["pattern"] = "prefixed" if fields.pop("is_prefix") else "literal"
        return fields


def acls(role: Role, principal: str, *, prefix: str = DEFAULT_PREFIX, group: str = "hydrophone") -> tuple[Acl, ...]:
    """What `principal` needs to play `role`. Raises `SettingsError`.

    A processor's transactional ids begin with its group and a dash, so that is what it may write.
    """
    if not PRINCIPAL.fullmatch(principal):
        raise SettingsError(f"`principal` reads like `User:name`; got {principal!r:.80}")
    return tuple(Acl(principal, *rest) for rest in _rules(role, prefix, group))


def kafka_acls_line(acl: Acl, *, bootstrap: str = "HOST:PORT") -> str:
    """A line for a shell with Kafka's own `kafka-acls.sh`."""
    option = acl.resource.replace("_", "-")
    words = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--add", "--allow-principal", acl.principal]
    words += ["--operation", acl.operation, f"--{option}", acl.name]
    return shlex.join([*words, "--resource-pattern-type", "prefixed"] if acl.is_prefix else words)


Rule = tuple[Operation, Resource, str, bool]

READS_WITHOUT_GROUP: Final[Rule] = ("Describe", "group", READER_GROUP, True)


def _rules(role: Role, prefix: str, group: str) -> Iterator[Rule]:
    def on(operation: Operation, *chosen: Topic) -> Iterator[Rule]:
        yield from ((operation, "topic", topic.full_name(prefix), False) for topic in chosen)

    match role:
        case "publisher":
            yield from on("Write", topics.ACTIVATIONS)
        case "processor":
            yield from on("Read", *READ_BY_PROCESSOR)
            yield from on("Write", *WRITTEN_BY_PROCESSOR)
            yield from on("DescribeConfigs", *topics.TOPICS)  # it refuses to start on topics that cannot be recovered
            yield READS_WITHOUT_GROUP
            yield "Read", "group", group, False
            yield "Write", "transactional_id", f"{group}-", True
        case "subscriber":
            yield from on("Read", *READ_BY_SUBSCRIBER)
            yield READS_WITHOUT_GROUP
        case "recorder":
            yield from on("Read", topics.ACTIVATIONS)
            yield READS_WITHOUT_GROUP
        case "administrator":
            yield from on("Create", *topics.TOPICS)
            yield from on("DescribeConfigs", *topics.TOPICS)
            yield from on("Describe", *topics.TOPICS)
            yield from on("Write", topics.REFERENCES, topics.CONTROL)
            yield from on("Read", topics.CONTROL)
