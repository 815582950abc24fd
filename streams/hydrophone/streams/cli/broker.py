"""`hydrophone broker`: the embedded broker. `hydrophone topics create | describe`."""

import json
import signal
import threading
from typing import Annotated

import typer
from rich.table import Table

from hydrophone.schemas.errors import SettingsError
from hydrophone.streams import topics as table
from hydrophone.streams.acls import ROLES, acls, kafka_acls_line
from hydrophone.streams.cli.console import err, out
from hydrophone.streams.cli.options import Bootstrap, Json, KafkaProperty, Prefix, kafka_flags
from hydrophone.streams.kafka.admin import create_topics, describe_topics
from hydrophone.streams.kafka.embedded import EmbeddedBroker
from hydrophone.streams.settings import load_settings

__all__ = ["register"]

EMBEDDED_PARTITIONS = 4

topics = typer.Typer(help="Create and describe topics.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.command()(broker)
    app.add_typer(topics, name="topics")


def embedded_topics(prefix: str) -> dict[str, int]:
    """The embedded broker answers no create request; its topics are made at the start."""
    wanted = table.with_partitions(table.TOPICS, EMBEDDED_PARTITIONS)
    return {topic.full_name(prefix): topic.partitions for topic in wanted}


def broker(prefix: Prefix = None) -> None:
    """Run the embedded broker (for trying things out: in memory, at-least-once only) until Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedBroker(embedded_topics(prefix or table.DEFAULT_PREFIX)) as embedded:
        out.print(embedded.bootstrap, markup=False)
        err.print("embedded broker: in memory, at-least-once only (use --guarantee at-least-once). Ctrl-C ends it.")
        stop.wait()


@topics.command()
def create(
    partitions: Annotated[
        int | None, typer.Option(help="Of activations: most processors that can share.", min=1)
    ] = None,
    replication_factor: Annotated[int, typer.Option(help="Copies of each record; -1 leaves it to the cluster.")] = -1,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
) -> int:
    """Create the topics that are absent; those that exist are left alone."""
    settings = load_settings(bootstrap=bootstrap, topic_prefix=prefix, **kafka_flags(kafka))
    made = create_topics(
        settings.kafka_properties,
        prefix=settings.topic_prefix,
        partitions=partitions,
        replication_factor=replication_factor,
    )
    for topic in made:
        out.print(
            f"{topic.status:10}  {topic.name}  {topic.partitions} partitions  {topic.remedy}".rstrip(), markup=False
        )
    return 3 if any(topic.status == "mismatched" for topic in made) else 0


@topics.command("acls")
def access(
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")],
    principal: Annotated[str, typer.Option(help="Who plays it, as the broker names them: User:NAME.")],
    group: Annotated[str | None, typer.Option(help="The processors' consumer group.  [default: hydrophone]")] = None,
    as_json: Json = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
) -> None:
    """Print the least that a role must be allowed, as lines for kafka-acls.sh. Changes nothing."""
    if role not in ROLES:
        raise SettingsError(f"`role` must be one of {', '.join(ROLES)}; got {role!r:.80}")
    settings = load_settings(bootstrap=bootstrap, topic_prefix=prefix, group=group)
    for acl in acls(role, principal, prefix=settings.topic_prefix, group=settings.group):
        line = kafka_acls_line(acl, bootstrap=settings.bootstrap or "HOST:PORT")
        out.print(json.dumps(acl.as_json()) if as_json else line, markup=False)


@topics.command()
def describe(
    as_json: Json = False, bootstrap: Bootstrap = None, prefix: Prefix = None, kafka: KafkaProperty = None
) -> None:
    """What the broker really has."""
    settings = load_settings(bootstrap=bootstrap, topic_prefix=prefix, **kafka_flags(kafka))
    names = [topic.full_name(settings.topic_prefix) for topic in table.TOPICS]
    found = describe_topics(settings.kafka_properties, names)
    if as_json:
        for topic in found.values():
            line = {"name": topic.name, "partitions": topic.partitions, "replication_factor": topic.replication_factor}
            out.print(json.dumps(line | {"configs": dict(topic.configs)}), markup=False)
        return
    view = Table("topic", "partitions", "replicas", "retention ms", "cleanup", "time", "max bytes")
    for topic in found.values():
        configs = [topic.configs.get(name, "") for name in ("retention.ms", "cleanup.policy", "message.timestamp.type")]
        view.add_row(
            topic.name,
            str(topic.partitions),
            str(topic.replication_factor),
            *configs,
            topic.configs.get("max.message.bytes", ""),
        )
    out.print(view)
