"""`hydrophone export`: scores in the files that other programs read. What the files say is decided in `schemas`."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from hydrophone.schemas.errors import RecordRejected
from hydrophone.schemas.sagemaker import Layout, job_files
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.cli.console import err, out, progress

__all__ = ["register"]

export = typer.Typer(help="Write scores for other programs.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(export, name="export")


@export.callback()
def _group() -> None:
    """A group from the start, so that a second format does not rename the first."""


@export.command()
def sagemaker(
    scores: Annotated[
        Path, typer.Argument(help="Window scores, one JSON object a line (`tail scores --json`).", metavar="SCORES")
    ],
    directory: Annotated[
        Path, typer.Option("--out", help="Folder to write; files of an earlier export are replaced.", metavar="DIR")
    ],
    endpoint: Annotated[
        str | None, typer.Option(help="The metrics' Endpoint.  [default: each score's model]", metavar="NAME")
    ] = None,
    schedule: Annotated[str, typer.Option(help="The metrics' MonitoringSchedule.", metavar="NAME")] = "hydrophone",
    layout: Annotated[
        Layout, typer.Option(help="Violations as AWS's schema has them, or as the layer-wise sample code wrote them.")
    ] = "aws",
) -> None:
    """Write constraint_violations.json, cloudwatch_metrics.jsonl and message as a SageMaker Model Monitor job does."""
    read = _scores(scores)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in job_files(read, schedule=schedule, endpoint=endpoint, layout=layout).items():
        (directory / name).write_text(text, encoding="utf-8")
    rejecting = sum(score.rejected for score in read)
    out.print(f"exported {len(read)} windows, {rejecting} with violations, to {directory}", markup=False)
    if read and all(score.detection_rate is None for score in read):
        err.print(
            "no score holds a detection rate: set `detection_rate` (`hydrophone process --detection-rate`) to have it",
            markup=False,
        )


def _scores(path: Path) -> list[WindowScore]:
    """In file order. Raises `RecordRejected` naming the line; blank lines are nothing."""
    found: list[WindowScore] = []
    with progress() as bar, path.open("rb") as lines:
        task = bar.add_task("reading scores", total=path.stat().st_size or None)
        for number, line in enumerate(lines, start=1):
            bar.advance(task, len(line))
            if not line.strip():
                continue
            try:
                found.append(WindowScore.model_validate_json(line))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                place = ".".join(map(str, first["loc"])) or "line"
                raise RecordRejected(
                    "not_a_score",
                    f"`{path}` line {number} must be one window score; `{place}`: {first['msg']}; "
                    "write such lines with `hydrophone tail scores --json`",
                ) from None
    return found
