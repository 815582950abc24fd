"""`hydrophone evaluate`: labelled frames through a reference's detectors, and which of several models was attacked."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from hydrophone.schemas.errors import SettingsError
from hydrophone.streams.cli.console import err, out, progress, readable
from hydrophone.streams.cli.options import Device, Json
from hydrophone.streams.frame_files import frame_paths, read_frames

if TYPE_CHECKING:
    from hydrophone.detectors.evaluation import Evaluation, ModelAttribution
    from hydrophone.detectors.evaluation.curves import Rate

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(evaluate)


def evaluate(
    frames: Annotated[
        list[Path] | None, typer.Argument(help="Labelled frame files, or folders of them.", metavar="FRAMES...")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="The reference whose detectors are evaluated.", metavar="DIR")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Frames of each of several models, as in `--models A=DIR B=DIR`: which was attacked?",
            metavar="NAME=FRAMES...",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write one page with tables and plots.", metavar="FILE")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """How well detectors do on rows whose truth is known: per attack, layer and source; as a table, JSON or a page.

    Frames carry `label` (0 natural, 1 adversarial, 2 noisy) and `attack`; best of inputs that nothing was fitted on.
    """
    from hydrophone.streams.evaluation_page import page

    places, groups = _places(frames or [], models or [])
    if not groups and (not places or reference is None):
        raise SettingsError("`evaluate` wants FRAMES and `--reference DIR`, or `--models A=FRAMES B=FRAMES`, or both")
    with progress() as bar:
        bar.add_task("evaluating", total=None)
        evaluation = None if not places or reference is None else _evaluation(places, reference, device, html)
        attribution = _attribution(groups) if groups else None
        if html is not None:
            html.write_text(page(evaluation, attribution), encoding="utf-8")
    if as_json:
        parts = {"evaluation": evaluation, "models": attribution}
        said = {name: None if part is None else asdict(part) for name, part in parts.items()}
        out.print(json.dumps(_finite(said)), markup=False)
        return
    if evaluation is not None:
        _show(evaluation)
    if attribution is not None:
        _show_models(attribution)


def _places(frames: list[Path], models: list[str]) -> tuple[list[Path], dict[str, list[Path]]]:
    """Where frames lie, and those of each model. An option takes one value, so the models after the first of
    `--models A=x B=y` come as frames."""
    given = [*models, *(str(path) for path in frames if models and "=" in str(path) and not path.exists())]
    groups: dict[str, list[Path]] = {}
    for text in given:
        name, equals, place = text.partition("=")
        if not equals or not name or not place:
            raise SettingsError(f"`--models` takes NAME=FRAMES; got {text!r}")
        groups.setdefault(name, []).append(Path(place))
    return [path for path in frames if str(path) not in given], groups


def _evaluation(places: list[Path], folder: Path, device: str | None, html: Path | None) -> "Evaluation":
    from hydrophone.detectors import Reference
    from hydrophone.detectors.evaluation import evaluate as evaluated

    loaded = Reference.load(folder, device=device or "auto")
    return evaluated(read_frames(frame_paths(places)), loaded, with_picture=html is not None)


def _attribution(groups: dict[str, list[Path]]) -> "ModelAttribution":
    from hydrophone.detectors.evaluation import which_model

    return which_model({name: list(read_frames(frame_paths(places))) for name, places in groups.items()})


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(evaluation: "Evaluation") -> None:
    head = f"{evaluation.model}, reference {evaluation.reference}: {evaluation.rows} labelled rows"
    out.print(readable(head), markup=False)
    if evaluation.shared_rows:
        err.print(f"{evaluation.shared_rows} rows are the reference's own: these numbers flatter", markup=False)
    table = Table(Column("attack", no_wrap=True), "rows", "ROC-AUC", "AP", "precision", "recall", "F1", "false alarms")
    for report in (*evaluation.attacks, evaluation.all_attacks):
        curve, reject = report.curve, report.reject
        precision = "" if reject.precision is None else f"{reject.precision:.3f}"
        numbers = [f"{curve.auc:.3f}", f"{curve.average_precision:.3f}", precision, f"{reject.recall:.3f}"]
        numbers += [f"{reject.f1:.3f}", f"{reject.false_positive_rate:.1%}"]
        table.add_row(readable(report.attack), str(report.rows), *numbers)
    out.print(table)
    layers = sorted({name for source in evaluation.sources for name in source.layers})
    table = Table(
        Column("source", no_wrap=True), "accepted", "abstained", "rejected", "gate accepts", *layers, "joint rate"
    )
    for source in evaluation.sources:
        cells = [_percent(source.accepted), _percent(source.abstained), _percent(source.rejected)]
        cells += [_percent(source.gate_accepts["(all)"])]
        rates = [source.layers.get(layer) for layer in layers] + [source.detection_rate]
        table.add_row(readable(source.source), *cells, *("" if rate is None else f"{rate:.0%}" for rate in rates))
    out.print(table)
    found = evaluation.abstention
    out.print(f"decided {_percent(found.decided)} of rows, right {_percent(found.right)}", markup=False)
    for level in evaluation.levels[:3]:
        out.print(f"natural rows with p <= {level.level:g}: {_percent(level.natural)}", markup=False)
    if (naming := evaluation.naming) is not None:
        said = f"families named {_percent(naming.families_named)}, right {_percent(naming.families_right)}"
        out.print(f"{said}; attacks right {_percent(naming.attacks_right)}", markup=False)


def _show_models(models: "ModelAttribution") -> None:
    table = Table(Column("model", no_wrap=True), "rows", "precision", "recall", "F1", "AP")
    for model in models.models:
        numbers = (model.precision, model.recall, model.f1, model.average_precision)
        table.add_row(readable(model.model), str(model.rows), *(f"{number:.3f}" for number in numbers))
    out.print(table)
    right = _percent(models.right)
    out.print(f"which model was attacked: right {right}, by chance {models.chance:.1%}", markup=False)


def _percent(rate: "Rate") -> str:
    return "no rows" if rate.share is None else f"{rate.share:.1%}"
