"""`hydrophone process`: the stream processor."""

import logging
import signal
from collections.abc import Mapping
from typing import Annotated

import typer

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.streams import logs
from hydrophone.streams.cli.options import (
    Bootstrap,
    Device,
    KafkaProperty,
    Prefix,
    References,
    kafka_flags,
)
from hydrophone.streams.kafka.admin import TopicDescription
from hydrophone.streams.settings import Settings, load_settings
from hydrophone.streams.topics import TOPICS

__all__ = ["register"]

log = logging.getLogger("hydrophone")


def register(app: typer.Typer) -> None:
    app.command()(process)


def process(
    reference: References = None,
    bootstrap: Bootstrap = None,
    group: Annotated[str | None, typer.Option(help="Consumer group.  [default: hydrophone]")] = None,
    window_ms: Annotated[int | None, typer.Option(help="Length of a window.  [default: 60000]", metavar="MS")] = None,
    lateness_ms: Annotated[
        int | None, typer.Option(help="How late a row may come.  [default: 10000]", metavar="MS")
    ] = None,
    future_skew_ms: Annotated[
        int | None, typer.Option(help="How far a clock may run ahead.  [default: 5000]", metavar="MS")
    ] = None,
    expected_delay_ms: Annotated[
        int | None, typer.Option(help="How long a row usually is on its way.  [default: 2000]", metavar="MS")
    ] = None,
    idle_ms: Annotated[
        int | None, typer.Option(help="Silence after which the clock closes windows.  [default: 5000]", metavar="MS")
    ] = None,
    snapshot_ms: Annotated[
        int | None,
        typer.Option(
            help="How often windows that stay open are written down; 0: never.  "
            "[default: 300000 where windows last 15 minutes or more]",
            metavar="MS",
        ),
    ] = None,
    k: Annotated[int | None, typer.Option(help="Most rows of a window that are tested.  [default: 512]")] = None,
    least_k: Annotated[
        int | None, typer.Option(help="Fewest rows to test where tests cannot keep pace.  [default: k / 4]")
    ] = None,
    false_alarms_per_month: Annotated[
        float | None, typer.Option(help="Budget of alerts per model on clean traffic.  [default: 1]")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Of sharded models: windows, merge, or both, all.  [default: all]")
    ] = None,
    instance_id: Annotated[
        str | None, typer.Option(help="Stable name of this processor; restarted in time, it gets its partitions back.")
    ] = None,
    group_protocol: Annotated[
        str | None, typer.Option(help="auto, classic, or consumer (KIP-848, Kafka 4).  [default: auto]")
    ] = None,
    guarantee: Annotated[
        str | None, typer.Option(help="exactly-once, or at-least-once for brokers without transactions.")
    ] = None,
    evidence: Annotated[str | None, typer.Option(help="Where rejecting windows' rows go.", metavar="URI")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Serve Prometheus metrics on loopback.")] = None,
    otlp_endpoint: Annotated[str | None, typer.Option(help="Send traces and metrics there (OTLP/HTTP).")] = None,
    verdicts: Annotated[
        str | None, typer.Option(help="Rows told on `verdicts`: all, suspicious or none.  [default: suspicious]")
    ] = None,
    detection_rate: Annotated[
        bool | None,
        typer.Option("--detection-rate", help="Add the layer-wise method's detection rate to every score."),
    ] = None,
    device: Device = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
) -> None:
    """Keep windows, test them, write scores and alerts. SIGTERM or Ctrl-C drains: nothing is lost or doubled."""
    settings = load_settings(
        reference=tuple(reference) if reference else None,
        bootstrap=bootstrap,
        group=group,
        window_ms=window_ms,
        lateness_ms=lateness_ms,
        future_skew_ms=future_skew_ms,
        expected_delay_ms=expected_delay_ms,
        idle_ms=idle_ms,
        snapshot_ms=snapshot_ms,
        k=k,
        least_k=least_k,
        false_alarms_per_month=false_alarms_per_month,
        stage=stage,
        instance_id=instance_id,
        group_protocol=group_protocol,
        guarantee=guarantee,
        evidence=evidence,
        metrics_port=metrics_port,
        otlp_endpoint=otlp_endpoint,
        verdicts=verdicts,
        detection_rate=detection_rate,
        device=device,
        topic_prefix=prefix,
        **kafka_flags(kafka),
    )
    logs.configure(settings.log_format)
    run(settings)


def run(settings: Settings) -> None:
    """Build a processor and run it until a signal comes."""
    from hydrophone.streams import failpoints, observe
    from hydrophone.streams.assembly import build_runtime
    from hydrophone.streams.kafka.admin import require_topics

    failpoints.arm_from_environment()
    if settings.metrics_port is not None or settings.otlp_endpoint is not None:
        observe.export(metrics_port=settings.metrics_port, otlp_endpoint=settings.otlp_endpoint)
    if settings.guarantee == "exactly-once":
        names = [topic.full_name(settings.topic_prefix) for topic in TOPICS]
        _check_copartitioned(require_topics(settings.kafka_properties, names, timeout_s=10), settings.topic_prefix)
    runtime = build_runtime(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runtime.stop())
    log.info("processor started", extra={"group": settings.group, "settings": settings.redacted()})
    runtime.run()
    log.info("processor drained")


def _check_copartitioned(found: Mapping[str, TopicDescription], prefix: str) -> None:
    """A partition of `activations` without its own of `state` could never be recovered."""
    names = [topic.full_name(prefix) for topic in TOPICS if topic.is_copartitioned]
    counts = {name: found[name].partitions for name in names}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"`{name}` has {partitions}" for name, partitions in counts.items())
        raise ConfigurationError(
            f"these topics must have as many partitions as each other: {told}; see `hydrophone doctor`"
        )
