"""`hydrophone reference fit | calibrate | show | announce`."""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer
from rich.table import Table

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.frame import Frame, concat
from hydrophone.schemas.operations import ReferencePointer
from hydrophone.schemas.score import WindowScore
from hydrophone.streams import topics
from hydrophone.streams.cli.console import err, out, progress
from hydrophone.streams.cli.options import Bootstrap, Device, Json, KafkaProperty, Prefix, kafka_flags
from hydrophone.streams.clock import now_ms, utc_ms
from hydrophone.streams.frame_files import frame_paths, read_frames
from hydrophone.streams.score_files import read_scores
from hydrophone.streams.settings import load_settings

if TYPE_CHECKING:
    from hydrophone.detectors import Reference
    from hydrophone.detectors.samples.manifest import SampleManifest

__all__ = ["register"]

MOST_SHARED: Final = 0.01
"""Of the rows to calibrate with: more in common with the reference is no coincidence."""


class Calibration(StrEnum):
    STRATIFIED = "stratified"
    BLOCKS = "blocks"


reference = typer.Typer(
    help="Fit, calibrate, show and announce references.", no_args_is_help=True, rich_markup_mode=None
)


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
    samples: Annotated[
        bool, typer.Option("--samples", help="Fit detectors of single rows as well, for a verdict on each.")
    ] = False,
    labelled: Annotated[
        list[Path] | None,
        typer.Option(help="Frames with `label` and `attack`: the detectors learn from attacks.", metavar="FRAMES"),
    ] = None,
    outside: Annotated[
        list[Path] | None,
        typer.Option(help="Frames of inputs the model is not for: the gate is tuned on them.", metavar="FRAMES"),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(help="The last hidden layer.  [default: where classes lie farthest apart]", metavar="LAYER"),
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option(help="The model's accuracy on clean inputs: near chance is refused.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="A name for this version.  [default: from the content]")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Fit a reference from natural validation traffic."""
    from hydrophone.detectors import fit_reference
    from hydrophone.detectors.samples import fit_samples

    read = _read(frames, model)
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
    if samples or labelled or outside:
        detectors = fit_samples(
            read,
            labelled=_read(labelled, model) if labelled else None,
            outside=_read(outside, model) if outside else None,
            embedding=embedding,
            accuracy=accuracy,
            seed=seed,
            device=device or "auto",
        )
        fitted = fitted.with_samples(detectors, version=version)
    elif embedding is not None or accuracy is not None:
        raise ConfigurationError("`--embedding` and `--accuracy` are about verdicts; add `--samples`")
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
        (sizes.excluded_repeated, "that repeat another"),
        (sizes.excluded_surplus, "more than the test permutes"),
    ):
        if count:
            err.print(f"left out: {count} rows {why}", markup=False)
    if fitted.manifest.samples is not None:
        _show_samples(fitted.manifest.samples)


def _show_samples(manifest: "SampleManifest") -> None:
    sizes = manifest.sizes
    out.print(
        f"verdicts on rows: {len(manifest.measures)} measures, embedding `{manifest.embedding}`, {sizes.density} rows "
        f"of density, {sizes.ranks} of tails, {sizes.calibration} to rank among",
        markup=False,
    )
    for name, family in manifest.attacks.items():
        found = manifest.held_out_auc.get(name)
        told = "" if found is None else f": ROC-AUC {found:.3f} on sources held out"
        out.print(f"  attack {name} ({family}){told}", markup=False)
    if manifest.attacks and manifest.family_threshold is None:
        err.print("no family of attacks is named: on held-out rows too many such names were wrong", markup=False)
    if sizes.excluded_shared:
        err.print(f"left out: {sizes.excluded_shared} natural rows of a source that is labelled too", markup=False)


@reference.command()
def calibrate(
    base: Annotated[Path, typer.Option("--reference", help="The reference to add clean windows to.", metavar="DIR")],
    directory: Annotated[Path, typer.Option("--out", help="Folder for the new version.", metavar="DIR")],
    frames: Annotated[
        list[Path] | None, typer.Argument(help="Frames of clean traffic, or folders of them.", metavar="[FRAMES...]")
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option("--scores", help="Scores of windows you know to be clean, one JSON a line.", metavar="FILE"),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="Rows of each window.  [default: the most that leaves 199 windows, at most 512]")
    ] = None,
    window_ms: Annotated[
        int | None, typer.Option(help="Cut frames into windows of event time.  [default: runs of successive rows]")
    ] = None,
    version: Annotated[str | None, typer.Option(help="A name for this version.  [default: from the content]")] = None,
    device: Device = None,
) -> None:
    """Rank windows among clean ones: holds for rows that depend on each other, and for the one reference you have.

    Give frames of clean traffic that the reference was not fitted on, or --scores of clean windows of this reference.
    """
    from hydrophone.detectors import Reference

    if bool(frames) == bool(scores):
        raise ConfigurationError("give FRAMES of clean traffic or `--scores`, one of the two")
    loaded = Reference.load(base, device=device or "auto")
    if scores:
        size, statistics = _of_scores(read_scores(scores), {loaded.id.sha256, loaded.manifest.seed_sha256}, rows)
    else:
        size, statistics = _of_frames(loaded, _read(frames or [], loaded.manifest.model), rows, window_ms)
    calibrated = loaded.calibrate(statistics, rows=size, version=version)
    calibrated.save(directory)
    out.print(
        f"reference {calibrated.id.version} of {loaded.manifest.model}: windows of {size} rows rank among "
        f"{len(statistics)} clean ones, in {directory}",
        markup=False,
    )


def _of_frames(
    reference: "Reference", frames: list[Frame], rows: int | None, window_ms: int | None
) -> tuple[int, list[float]]:
    from hydrophone.detectors.calibration import MIN_WINDOWS, clean_windows

    traffic = _natural(frames)
    shared = reference.shared_rows(traffic)
    if shared > MOST_SHARED * len(traffic):
        raise ConfigurationError(
            f"{shared} of {len(traffic)} rows are the reference's own: clean windows made of them look too clean and "
            "every other window would alarm; calibrate with traffic the reference was not fitted on"
        )
    size, windows = clean_windows(traffic, rows=rows, window_ms=window_ms)
    if len(windows) < MIN_WINDOWS:
        raise ConfigurationError(
            f"a window is ranked among at least {MIN_WINDOWS} clean ones; {len(traffic)} rows make "
            f"{len(windows)} of {size} rows: record more clean traffic, or give a smaller `--rows`"
        )
    statistics: list[float] = []
    with progress() as bar:
        task = bar.add_task("testing clean windows", total=len(windows))
        for window in windows:
            statistic = reference.statistic(window, rows=size)
            if statistic is not None:
                statistics.append(statistic)
            bar.advance(task)
    return size, statistics


def _natural(frames: list[Frame]) -> Frame:
    """All rows not labelled adversarial or noisy."""
    rows = concat(frames)
    labels = np.concatenate([np.zeros(len(f), np.int64) if f.label is None else f.label for f in frames])
    if not (labels == 0).any():
        raise ConfigurationError(f"clean traffic has rows that are not labelled otherwise; all {len(rows)} are")
    return rows if not labels.any() else rows.take(labels == 0)


def _of_scores(scores: Iterable[WindowScore], known: set[str], rows: int | None) -> tuple[int, list[float]]:
    """The statistics of tested windows of the commonest size, or of the size asked for."""
    usable = [
        (score.counts.tested, score.joint.statistic)
        for score in scores
        if score.joint is not None and score.reference is not None and score.reference.sha256 in known
    ]
    if not usable:
        raise ConfigurationError(f"`--scores` holds no tested window of this reference ({min(known)})")
    size = rows or Counter(tested for tested, _ in usable).most_common(1)[0][0]
    return size, [statistic for tested, statistic in usable if tested == size]


def _read(folders: list[Path], model: str) -> list[Frame]:
    """Frames of one model, with progress."""
    paths = frame_paths(folders)
    read: list[Frame] = []
    with progress() as bar:
        task = bar.add_task("reading frames", total=len(paths))
        for frame in read_frames(paths):
            if frame.model != model:
                raise ConfigurationError(
                    f"the reference is for model `{model}`; `{paths[len(read)]}` holds frames of `{frame.model}`"
                )
            read.append(frame)
            bar.advance(task)
    return read


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
    if manifest.windows is not None:
        kept = manifest.windows
        table.add_row("calibration", f"windows of {kept.rows} rows rank among {kept.windows} clean ones")
    baseline = manifest.baseline_detection_rate
    table.add_row("baseline", "too few rows" if baseline is None else f"detection rate {baseline:.0%} against itself")
    if manifest.samples is not None:
        attacks = ", ".join(manifest.samples.attacks) or "none were labelled"
        table.add_row("verdicts", f"{len(manifest.samples.measures)} measures a row; attacks known: {attacks}")
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
    from hydrophone.streams.outputs import OutputTopics

    settings = load_settings(bootstrap=bootstrap, topic_prefix=prefix, window_ms=window_ms, **kafka_flags(kafka))
    loaded = Reference.load(directory, device="cpu")
    earliest = now_ms() + settings.window_ms + settings.lateness_ms
    wanted = earliest if effective_from is None else utc_ms(effective_from)
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
    row = OutputTopics(settings.topic_prefix).row(topics.REFERENCES, pointer, pointer.key)
    send(settings.kafka_properties, row)
    out.print(f"announced {pointer.key}, in force from {wanted} ms UTC", markup=False)
