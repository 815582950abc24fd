"""`hydrophone reference fit | show | announce`."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.operations import ReferencePointer
from hydrophone.streams import topics
from hydrophone.streams.cli.console import err, out, progress
from hydrophone.streams.cli.options import Bootstrap, Device, Json, KafkaProperty, Prefix, kafka_flags
from hydrophone.streams.clock import now_ms
from hydrophone.streams.frame_files import frame_paths, read_frames
from hydrophone.streams.settings import load_settings

__all__ = ["register"]


class Calibration(StrEnum):
    STRATIFIED = "stratified"
    BLOCKS = "blocks"


reference = typer.Typer(help="Fit, show and announce references.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(reference, name="reference")


@reference.command()
def fit(
    frames: Annotated[list[Path], typer.Argument(help="Frame files, or folders of them.", metavar="FRAMES...")],
    model: Annotated[str, typer.Option(help="The model's id; frames of another are refused.", metavar="ID")],
    directory: Annotated[Path, typer.Option("--out", help="Folder to write.", metavar="DIR")],
    permutations: Annotated[int, typer.Option(help="Permutations a window test draws.")] = 999,
    alpha: Annotated[float, typer.Option(help="Level of a rejection.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Which rows are fitted on.")] = 0,
    max_reference_rows: Annotated[
        int, typer.Option(help="Most rows to test windows against: more make the level firmer and windows slower.")
    ] = 8000,
    calibration: Annotated[
        Calibration, typer.Option(help="What changes sides: rows of a class, or blocks of rows in time order.")
    ] = Calibration.STRATIFIED,
    block_rows: Annotated[int, typer.Option(help="Rows a block, for `--calibration blocks`.")] = 20,
    version: Annotated[str | None, typer.Option(help="A name for this version.  [default: from the content]")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Fit a reference from natural validation traffic."""
    from hydrophone.detectors import fit_reference

    paths = frame_paths(frames)
    read: list[Frame] = []
    with progress() as bar:
        task = bar.add_task("reading frames", total=len(paths))
        for frame in read_frames(paths):
            if frame.model != model:
                raise ConfigurationError(
                    f"`--model` is `{model}`; `{paths[len(read)]}` holds frames of `{frame.model}`"
                )
            read.append(frame)
            bar.advance(task)
    fitted = fit_reference(
        read,
        permutations=permutations,
        alpha=alpha,
        seed=seed,
        device=device or "auto",
        max_reference_rows=max_reference_rows,
        calibration=calibration.value,
        block_rows=block_rows,
        version=version,
    )
    fitted.save(directory)
    if as_json:
        out.print_json(fitted.manifest.text())
        return
    sizes = fitted.manifest.sizes
    out.print(
        f"reference {fitted.id.version} of {model}: {sizes.reference} rows to test against, {sizes.fit} fitted on, "
        f"{len(fitted.manifest.layers)} layers, in {directory}",
        markup=False,
    )
    for count, why in (
        (sizes.excluded_labelled, "labelled adversarial or noisy"),
        (sizes.excluded_bad, "not finite"),
        (sizes.excluded_surplus, "more than the test permutes"),
    ):
        if count:
            err.print(f"left out: {count} rows {why}", markup=False)


@reference.command()
def show(
    directory: Annotated[Path, typer.Argument(help="A reference folder.", metavar="DIR")], as_json: Json = False
) -> None:
    """Verify a reference and say what it holds."""
    from hydrophone.detectors import Reference

    loaded = Reference.load(directory, device="cpu")
    manifest = loaded.manifest
    if as_json:
        out.print_json(json.dumps({"sha256": loaded.id.sha256, **json.loads(manifest.text())}))
        return
    table = Table(show_header=False, box=None)
    table.add_row("model", manifest.model)
    table.add_row("version", manifest.version)
    table.add_row("sha256", loaded.id.sha256)
    table.add_row("rows", f"{manifest.sizes.reference} to test against, {manifest.sizes.fit} fitted on")
    table.add_row("test", f"{manifest.permutations} permutations, alpha {manifest.alpha}")
    table.add_row("strata", ", ".join(map(str, manifest.classes)) or "none")
    for name, layer in manifest.layers.items():
        table.add_row(f"layer {name}", f"{layer.dimensions} features, median distance {layer.median_distance:.3g}")
    out.print(table)


@reference.command()
def announce(
    directory: Annotated[Path, typer.Argument(help="A reference folder.", metavar="DIR")],
    uri: Annotated[str | None, typer.Option(help="Where processors fetch it (any fsspec URI).  [default: DIR]")] = None,
    effective_from: Annotated[
        datetime | None, typer.Option(help="First event time it is for (UTC).  [default: as soon as the rule allows]")
    ] = None,
    window_ms: Annotated[int | None, typer.Option(help="The processors' window length.")] = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
) -> None:
    """Say on the `references` topic which reference is in force, and from when."""
    from hydrophone.detectors import Reference
    from hydrophone.streams.kafka.delivery import send
    from hydrophone.streams.outputs import Output

    settings = load_settings(bootstrap=bootstrap, topic_prefix=prefix, window_ms=window_ms, **kafka_flags(kafka))
    loaded = Reference.load(directory, device="cpu")
    earliest = now_ms() + settings.window_ms + settings.lateness_ms
    wanted = earliest if effective_from is None else int(effective_from.replace(tzinfo=UTC).timestamp() * 1000)
    if wanted < earliest:
        raise ConfigurationError(
            f"`--effective-from` must be at least window + lateness from now ({earliest} ms UTC), or windows already "
            f"open would change their reference; got {wanted}"
        )
    pointer = ReferencePointer(
        model=loaded.manifest.model,
        version=loaded.id.version,
        uri=uri or directory.absolute().as_uri(),
        sha256=loaded.id.sha256,
        effective_from_ms=wanted,
    )
    topic = topics.REFERENCES.full_name(settings.topic_prefix)
    headers: list[tuple[str, bytes | None]] = [
        ("ce_type", pointer.event_type.encode()),
        ("content-type", b"application/json"),
    ]
    send(settings.kafka_properties, Output(topic, pointer.key.encode(), pointer.model_dump_json().encode(), headers))
    out.print(f"announced {pointer.key}, in force from {wanted} ms UTC", markup=False)
