"""`hydrophone score`: frame files as one window, no broker. `hydrophone record`: frames from the topic into files."""

import time
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import TopicMetadata  # type: ignore[attr-defined]  # re-exported without saying so
from rich.table import Table

from hydrophone.schemas.errors import BrokerUnavailable, RecordRejected, TopicMissing
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Heartbeat, decode
from hydrophone.schemas.score import PriorShift, WindowScore
from hydrophone.streams import topics
from hydrophone.streams.acls import READER_GROUP
from hydrophone.streams.cli.console import SHOWN_SUSPECTS, err, out, progress, readable
from hydrophone.streams.cli.options import Bootstrap, Device, Json, KafkaProperty, Prefix, kafka_flags
from hydrophone.streams.frame_files import frame_paths, read_frames
from hydrophone.streams.frame_writer import FrameWriter
from hydrophone.streams.kafka.clients import reader
from hydrophone.streams.kafka.messages import headers_of
from hydrophone.streams.kafka.trouble import Trouble, check_access, explained
from hydrophone.streams.settings import load_settings

__all__ = ["register", "show_score"]


def register(app: typer.Typer) -> None:
    app.command()(score)
    app.command()(record)


def score(
    frames: Annotated[list[Path], typer.Argument(help="Frame files, or folders of them.", metavar="FRAMES...")],
    reference: Annotated[Path, typer.Option(help="The reference folder to test against.", metavar="DIR")],
    detection_rate: Annotated[
        bool, typer.Option("--detection-rate", help="Add the share of 100 re-draws that differ, per layer and joint.")
    ] = False,
    device: Device = None,
    as_json: Json = False,
) -> int:
    """Test all rows of some files as one window. Exit code 1 when the test rejects."""
    from hydrophone.detectors import Reference

    loaded = Reference.load(reference, device=device or "auto")
    paths = frame_paths(frames)
    with progress() as bar:
        task = bar.add_task("reading frames", total=len(paths))
        read = []
        for frame in read_frames(paths):
            read.append(frame)
            bar.advance(task)
        bar.add_task("testing", total=None)
        result = loaded.test(read, detection_rate=detection_rate)
    times = [int(t) for frame in read for t in (frame.event_time_ms.min(), frame.event_time_ms.max())]
    event = result.to_score(window=WindowBounds(start_ms=min(times), end_ms=max(times) + 1))
    if as_json:
        out.print(event.model_dump_json(), markup=False)
    else:
        show_score(event)
    return 1 if event.rejected else 0


def show_score(event: WindowScore) -> None:
    """For people."""
    if event.joint is None:
        out.print(f"{event.model}: {event.counts.seen} rows, not tested: {event.reason}", markup=False)
        _show_signals(event)
        return
    verdict = "DIFFERENT from the reference" if event.rejected else "no difference found"
    out.print(f"{event.model}: {event.counts.tested} rows, {verdict}, p = {event.joint.p_value:.4g}", markup=False)
    has_rate = event.detection_rate is not None
    table = Table("layer", "MMD²", "statistic", "p", "p adjusted", *(["detection rate"] if has_rate else []))
    for name, layer in event.layers.items():
        cells = [f"{layer.statistic:.2f}", f"{layer.p_value:.4g}", f"{layer.p_adjusted:.4g}"]
        rate = [] if not has_rate else ["" if layer.detection_rate is None else f"{layer.detection_rate:.0%}"]
        table.add_row(name, "" if layer.mmd2 is None else f"{layer.mmd2:.3g}", *cells, *rate)
    out.print(table)
    if event.detection_rate is not None:
        baseline = event.baseline_detection_rate
        beside = "" if baseline is None else f" (the reference against itself: {baseline:.0%})"
        out.print(f"detection rate {event.detection_rate:.0%}{beside}", markup=False)
    _show_signals(event)
    if event.rejected:
        out.print("most suspicious rows:", markup=False)
        for suspect in event.suspects[:SHOWN_SUSPECTS]:
            name = suspect.sample_id or f"row {suspect.row} of frame {suspect.frame_id}"
            out.print(readable(f"  {suspect.score:8.3g}  {name}  {suspect.client_id or ''}"), markup=False)
        if (more := len(event.suspects) - SHOWN_SUSPECTS) > 0:
            out.print(f"  and {more} more (--json)", markup=False)


def _show_signals(event: WindowScore) -> None:
    """What stands beside the test, where there is something to say."""
    replay, shift = event.replay, event.prior_shift
    if replay is not None and replay.rows:
        out.print(f"replay: {replay.rows} rows repeat another, p = {replay.p_value:.4g}", markup=False)
        for group in replay.groups:
            kind = "equal" if group.is_exact else "nearly equal"
            names = f"{', '.join(group.sample_ids)}  {', '.join(group.client_ids)}"
            out.print(readable(f"  {group.rows:6} {kind} rows  {names}"), markup=False)
    if shift is not None:
        out.print(f"class mix: p = {shift.p_value:.4g}{_most_moved(shift, event.alpha)}", markup=False)


def _most_moved(shift: PriorShift, alpha: float) -> str:
    """The class whose share moved most, where the mix did."""
    if shift.p_value > alpha:
        return ""
    name, (window, reference) = max(shift.shares.items(), key=lambda item: abs(item[1][0] - item[1][1]))
    return f", most of all class {name}: {window:.1%} here, {reference:.1%} in the reference"


def record(
    model: Annotated[str, typer.Option(help="The model whose frames to record.", metavar="ID")],
    rows: Annotated[int, typer.Option(help="Rows to record.", min=1)],
    directory: Annotated[Path, typer.Option("--out", help="Folder to write.", metavar="DIR")],
    from_latest: Annotated[bool, typer.Option("--from-latest", help="Only what comes from now on.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the rows.")] = 60.0,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
) -> int:
    """Record frames of a model from the activations topic. Exit code 1 when fewer rows came in time."""
    settings = load_settings(bootstrap=bootstrap, topic_prefix=prefix, **kafka_flags(kafka))
    topic = topics.ACTIVATIONS.full_name(settings.topic_prefix)
    verify = settings.signature_check  # a reference must not be fitted on what anybody wrote
    trouble = Trouble()
    consumer = reader(settings.kafka_properties | {"error_cb": trouble})
    written = 0
    try:
        known = _known(consumer, topic, settings.bootstrap or "", trouble)
        if known.error is not None:
            _check(known.error, topic)
            raise TopicMissing(f"`{topic}`: {known.error.str()}; create it with `hydrophone topics create`")
        start = -1 if from_latest else -2  # librdkafka's names for the end and the beginning
        consumer.assign([TopicPartition(topic, p, start) for p in known.partitions])
        deadline = time.monotonic() + timeout
        with FrameWriter(directory, model=model) as writer, progress() as bar:
            task = bar.add_task(f"recording {model}", total=rows)
            while written < rows and time.monotonic() < deadline:
                for message in consumer.consume(100, timeout=0.5):
                    if message.error() is not None or message.key() != model.encode() or written >= rows:
                        _check(message.error(), topic)
                        continue
                    value = message.value() or b""
                    try:
                        if verify is not None:
                            verify(message.key(), value, headers_of(message))
                        frame = decode(value)
                    except RecordRejected as refusal:
                        err.print(f"left out offset {message.offset()}: {refusal}", markup=False)
                        continue
                    if not isinstance(frame, Heartbeat):
                        writer.publish(frame)
                        written += len(frame)
                        bar.advance(task, len(frame))
    finally:
        consumer.close()
    out.print(f"recorded {written} rows of {model} in {directory}", markup=False)
    return 0 if written >= rows else 1


def _known(consumer: Consumer, topic: str, where: str, trouble: Trouble) -> TopicMetadata:
    try:
        known: TopicMetadata = consumer.list_topics(topic, timeout=10).topics[topic]
    except KafkaException as error:
        consumer.poll(0)  # serves the callback
        raise explained(error.args[0], where, trouble) from None
    return known


def _check(error: KafkaError | None, topic: str) -> None:
    if error is None:
        return
    check_access(error, topic=topic, group=READER_GROUP)
    if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # documented constant
        raise BrokerUnavailable(error.str())
