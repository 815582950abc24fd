"""`hydrophone demo`: the story of `streams/demo/`, told on a terminal."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from hydrophone.schemas.alert import Alert
from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.cli.console import SHOWN_SUSPECTS, out, progress
from hydrophone.streams.cli.tail import rule_line, score_line

__all__ = ["register"]

MARKER = ".hydrophone-demo"


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    directory: Annotated[
        Path, typer.Option("--out", help="Folder for all files; emptied first.", metavar="DIR")
    ] = Path("hydrophone-demo"),
) -> int:
    """Train a model, attack it, and watch the alert come: about a minute, no Kafka needed."""
    from hydrophone.streams.demo.run import Plan, run_demo

    folder = _fresh(directory)
    plan = Plan()
    out.print(
        f"Hydrophone demo: {plan.natural} windows of natural traffic, then {plan.attacked} in which "
        f"{plan.hostile_share:.0%} of the requests are adversarial (PGD). Windows last {plan.window_ms / 1000:g} s.\n"
    )
    with progress() as bar:
        narrator = _Terminal(bar)
        story = run_demo(folder, plan, narrator)
    out.print()
    if not story.alerts:
        out.print("no alert was raised: see processor.log", style="bold red")
        return 1
    first = story.alerts[0]
    out.print(
        f"The attack took the model from {story.accuracy:.1%} to {story.attacked_accuracy:.1%} right. "
        f"{len(story.alerts)} alert(s); of the first one's {len(first.suspects)} suspects "
        f"{story.hostile_among(first)} were adversarial in truth."
    )
    out.print(f"\nEverything is in {folder}/: reference/, evidence/, validation/, processor.log", markup=False)
    if first.evidence is not None:
        out.print("Test an alert's evidence again, without a broker:", markup=False)
        path = first.evidence.uri.removeprefix("file://")
        out.print(f"  hydrophone score --reference {folder / 'reference'} {path}", markup=False)
    return 0


class _Terminal:
    """The story's lines above one progress bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        out.print(line, markup=False)

    def tick(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done)

    def score(self, score: WindowScore) -> None:
        out.print(score_line(score), style="red" if score.rejected else None, markup=False)

    def alert(self, alert: Alert, hostile: int) -> None:
        out.print(f"  ALERT ({alert.severity}): {alert.title}", style="bold red", markup=False)
        for rule in alert.rules:
            out.print(f"  rule: {rule_line(rule)}", markup=False)
        out.print(f"  {len(alert.suspects)} suspects, {hostile} of them adversarial in truth; first:", markup=False)
        for suspect in alert.suspects[:SHOWN_SUSPECTS]:
            out.print(f"    {suspect.sample_id}  {suspect.client_id}  {suspect.score:.3g}", markup=False)


def _fresh(directory: Path) -> Path:
    """An empty folder. One that a demo did not make is never emptied."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise ConfigurationError(f"`{directory}` is not empty and no demo made it; choose another `--out`")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()
    return directory
