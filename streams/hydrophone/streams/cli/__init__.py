"""The `hydrophone` program: parses, builds settings, calls. Exit codes are told in `main`."""

import sys
import traceback
from typing import Any, Final

import typer
from confluent_kafka import KafkaException

from hydrophone.schemas.errors import BrokerUnavailable, HydrophoneError, ProcessorStopped, RecordRejected
from hydrophone.streams.cli import (
    broker,
    demo,
    doctor,
    evaluate,
    export,
    files,
    process,
    references,
    replay,
    shards,
    tail,
)
from hydrophone.streams.cli.console import complain

__all__ = ["app", "main"]

FINE, USAGE, CONFIGURATION, BROKER, BUG, INTERRUPTED = 0, 2, 3, 4, 70, 130

# Typer carries a click of its own, or uses the installed one; this is the error of either.
UsageError: Final[Any] = typer.BadParameter.__base__

app = typer.Typer(
    name="hydrophone",
    help=(
        "Listens to a model's layers and says, while it happens, that somebody is feeding it inputs made to fool it."
        "\n\nExit codes: 0 fine, 1 a finding (or nothing arrived in time), 2 usage, 3 configuration, 4 broker."
        "\n\nEvery option is also a setting: HYDROPHONE_* in the environment, or hydrophone.toml. "
        "`hydrophone settings` shows what is in force."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (demo, broker, references, shards, files, process, tail, replay, evaluate, export, doctor):
    module.register(app)


def main() -> None:
    """Run the program and exit: 0 fine, 1 finding, 2 usage, 3 configuration, 4 broker, 70 a bug, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """One invocation, as an exit code."""
    try:
        result = app(arguments, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except UsageError as error:
        error.show()
        return USAGE
    except (HydrophoneError, KafkaException, OSError) as error:
        complain(str(error))
        return _exit_code(error)
    except Exception:  # noqa: BLE001  # the interpreter's own 1 would say that a window was found different
        traceback.print_exc()
        return BUG
    return result if isinstance(result, int) else FINE


def _exit_code(error: Exception) -> int:
    """By remedy: mend the input, look at the broker, or change what was set up."""
    if isinstance(error, RecordRejected):
        return USAGE
    return BROKER if isinstance(error, (BrokerUnavailable, ProcessorStopped, KafkaException)) else CONFIGURATION
