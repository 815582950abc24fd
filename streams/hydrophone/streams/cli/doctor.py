"""`hydrophone doctor`: is everything in order? `hydrophone settings`: what is in force."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from hydrophone.streams.cli.console import out
from hydrophone.streams.cli.options import Bootstrap, Json, KafkaProperty, Prefix, References, kafka_flags
from hydrophone.streams.settings import Settings, load_settings

__all__ = ["register"]

STYLES = {"ok": "green", "warning": "yellow", "broken": "red", "broker": "red"}


def register(app: typer.Typer) -> None:
    app.command()(doctor)
    app.command()(settings)


def doctor(
    reference: References = None,
    window_ms: Annotated[int | None, typer.Option(help="Length of a window.")] = None,
    as_json: Json = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
) -> int:
    """Check broker, topics, retention, references and device, and say what to do. Exit codes 3 and 4 as elsewhere."""
    from hydrophone.streams.doctor import examine

    chosen = load_settings(
        reference=tuple(reference) if reference else None,
        window_ms=window_ms,
        bootstrap=bootstrap,
        topic_prefix=prefix,
        **kafka_flags(kafka),
    )
    states = set()
    table = Table("", "what", "found", "what to do", box=None)
    for finding in examine(chosen):
        states.add(finding.state)
        if as_json:
            out.print(json.dumps(asdict(finding)), markup=False)
        else:
            table.add_row(finding.state, finding.what, finding.detail, finding.remedy, style=STYLES[finding.state])
    if not as_json:
        out.print(table)
    if "broker" in states:
        return 4
    return 3 if "broken" in states else 0


Describe = Annotated[bool, typer.Option("--describe", help="Say what each means.")]


def settings(as_json: Json = False, describe: Describe = False) -> None:
    """Print the settings in force, secrets masked, and what the budget of false alarms amounts to."""
    from hydrophone.streams.budget import USUAL_PERMUTATIONS, alarm_rules

    chosen = load_settings()
    values = chosen.redacted()
    if as_json:
        out.print_json(json.dumps(values))
        return
    for name, value in values.items():
        meaning = f"   # {Settings.model_fields[name].description}" if describe else ""
        out.print(f"{name} = {json.dumps(value)}{meaning}", markup=False)
    rules = alarm_rules(
        false_alarms_per_month=chosen.false_alarms_per_month,
        window_ms=chosen.window_ms,
        permutations=USUAL_PERMUTATIONS,
    )
    out.print(f"\n# Alarms, for references of {USUAL_PERMUTATIONS} permutations:", markup=False)
    for name, meaning in rules.lines().items():
        out.print(f"# {name}: {meaning}", markup=False)
