"""`hydrophone shards set | show`: over how many partitions a heavy model is spread."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.operations import ShardPlan
from hydrophone.streams import topics
from hydrophone.streams.cli.console import out
from hydrophone.streams.cli.options import Bootstrap, Json, KafkaProperty, Prefix, kafka_flags
from hydrophone.streams.clock import now_ms, utc_ms
from hydrophone.streams.frame_sink import require_model
from hydrophone.streams.settings import Settings, load_settings
from hydrophone.streams.shards import first_instant

__all__ = ["register"]

shards = typer.Typer(help="Spread a heavy model over partitions.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(shards, name="shards")


@shards.command(name="set")
def set_(
    model: Annotated[str, typer.Argument(help="The model.")],
    count: Annotated[int, typer.Argument(help="How many keys its frames are spread over.", min=1, max=1_024)],
    effective_from: Annotated[
        datetime | None, typer.Option(help="First event time it is for (UTC).  [default: as soon as the rule allows]")
    ] = None,
    window_ms: Annotated[int | None, typer.Option(help="The processors' window length.")] = None,
    lateness_ms: Annotated[int | None, typer.Option(help="The processors' lateness.")] = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
) -> None:
    """Say on the `control` topic how many shards a model has, and from when. Tell its publishers the same.

    From its first plan on a model's windows are merged, and stay so: with one shard a window costs one record more.
    """
    from hydrophone.streams.kafka.delivery import send
    from hydrophone.streams.outputs import OutputTopics

    settings = _settings(bootstrap, prefix, kafka, window_ms=window_ms, lateness_ms=lateness_ms)
    plan = ShardPlan(model=require_model(model), shards=count, effective_from_ms=_instant(effective_from, settings))
    send(settings.kafka_properties, OutputTopics(settings.topic_prefix).row(topics.CONTROL, plan, plan.key))
    out.print(
        f"{model} has {count} shards from {plan.effective_from_ms} ms UTC; "
        f"publishers: shards={count}, shards_from_ms={plan.effective_from_ms}",
        markup=False,
    )


def _instant(wanted: datetime | None, settings: Settings) -> int:
    """Raises `ConfigurationError` for an instant that windows already open could hold."""
    earliest = first_instant(now_ms(), settings.time_rules)
    if wanted is None:
        return earliest
    instant = utc_ms(wanted)
    if instant < earliest or instant % settings.window_ms:
        raise ConfigurationError(
            f"`--effective-from` must be a window's start, and the earliest that no open window can hold is "
            f"{earliest} ms UTC; got {instant}"
        )
    return instant


@shards.command()
def show(
    as_json: Json = False, bootstrap: Bootstrap = None, prefix: Prefix = None, kafka: KafkaProperty = None
) -> None:
    """Every plan announced so far."""
    from hydrophone.streams.kafka.shard_plans import read_plans

    settings = _settings(bootstrap, prefix, kafka)
    plans = read_plans(settings.kafka_properties, topics.CONTROL.full_name(settings.topic_prefix))
    if as_json:
        for plan in plans:
            out.print_json(plan.model_dump_json())
        return
    table = Table("model", "shards", "from", box=None)
    for plan in plans:
        begins = datetime.fromtimestamp(plan.effective_from_ms / 1000, UTC).isoformat(timespec="milliseconds")
        table.add_row(plan.model, str(plan.shards), begins)
    out.print(table)


def _settings(bootstrap: str | None, prefix: str | None, kafka: list[str] | None, **more: int | None) -> Settings:
    return load_settings(bootstrap=bootstrap, topic_prefix=prefix, **more, **kafka_flags(kafka))
