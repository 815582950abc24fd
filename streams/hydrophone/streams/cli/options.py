"""Options several commands share. Each is None when not given, so that environment and file can speak."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hydrophone.schemas.errors import SettingsError

__all__ = ["Bootstrap", "Device", "Json", "KafkaProperty", "Prefix", "kafka_flags"]

Bootstrap = Annotated[str | None, typer.Option(help="Kafka brokers, host:port.", metavar="HOST:PORT")]
Prefix = Annotated[str | None, typer.Option(help="Prefix of every topic's name.  [default: hydrophone.]")]
KafkaProperty = Annotated[
    list[str] | None,
    typer.Option("--kafka", "-X", help="A librdkafka property, key=value; repeat for more.", metavar="KEY=VALUE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda[:i].  [default: auto]")]
References = Annotated[
    list[Path] | None,
    typer.Option("--reference", help="A reference folder to pin; repeat for more models.", metavar="DIR"),
]
MILLISECONDS: Final = "MS"


def kafka_flags(properties: list[str] | None) -> dict[str, Any]:
    """`-X` flags as a settings flag. Raises `SettingsError`."""
    if not properties:
        return {}
    pairs = [text.partition("=") for text in properties]
    bad = [key for key, equals, _ in pairs if not equals or not key]
    if bad:
        raise SettingsError(f"`--kafka` takes KEY=VALUE; got {', '.join(bad)!r}")
    return {"kafka": {key: value for key, _, value in pairs}}
