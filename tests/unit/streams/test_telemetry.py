"""Every instrument fires in a run that has everything in it, and each window has one span, linked to its producers'.

The processor runs in this process against the embedded broker, with readers and exporters that keep what they get.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.broker import produce, read_all
from tests.support.processor import WIDTH, frame_at, judging_reference

from hydrophone.schemas.frame import Heartbeat
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.assembly import build_runtime
from hydrophone.streams.clock import now_ms
from hydrophone.streams.kafka.embedded import EmbeddedBroker
from hydrophone.streams.settings import load_settings
from hydrophone.streams.telemetry import Telemetry, traceparent_of
from hydrophone.streams.topics import ACTIVATIONS, SCORES, TOPICS, with_partitions

PRODUCER_TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{PRODUCER_TRACE}-b7ad6b7169203331-01".encode()
MODEL = "m"
EXPECTED = {
    "hydrophone.records",
    "hydrophone.rows",
    "hydrophone.windows",
    "hydrophone.alerts",
    "hydrophone.test.duration",
    "hydrophone.window.close_latency",
    "hydrophone.window.p_value",
    "hydrophone.window.requests",
    "hydrophone.window.detection_rate",
    "hydrophone.window.baseline_detection_rate",
    "hydrophone.transactions",
    "hydrophone.evidence.failures",
    "hydrophone.processing.lag",
    "hydrophone.tests.under_way",
    "hydrophone.verdicts",
    "hydrophone.verdict.duration",
    "hydrophone.verdict.latency",
    "hydrophone.verdicts.under_way",
}


@dataclass
class Watch:
    metrics: MetricsData
    spans: tuple[ReadableSpan, ...]
    scores: list[WindowScore]


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Five windows, two of them odd; a repetition, poison, late rows, and evidence that cannot be stored."""
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    meters, tracers = MeterProvider([reader]), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch, EmbeddedBroker(_partitions()) as broker:
        patch.setattr(metrics, "get_meter", meters.get_meter)
        patch.setattr(trace, "get_tracer", tracers.get_tracer)
        patch.chdir(tmp_path_factory.mktemp("empty"))
        _write(broker.bootstrap)
        folder = tmp_path_factory.mktemp("reference")
        collected = _run(broker.bootstrap, folder, reader)
        records = read_all(broker.bootstrap, SCORES.full_name())
        scores = [WindowScore.model_validate_json(record.value or b"") for record in records]
        yield Watch(collected, exporter.get_finished_spans(), scores)
    tracers.shutdown()
    meters.shutdown()


def _partitions() -> dict[str, int]:
    return {topic.full_name(): topic.partitions for topic in with_partitions(TOPICS, 1)}


def _write(bootstrap: str) -> None:
    first = now_ms() // 1_000 * 1_000 - 60_000
    topic, key = ACTIVATIONS.full_name(), MODEL.encode()
    for window in range(5):
        shift = 3.0 if window > 2 else 0.0
        frames = [
            frame_at(MODEL, [first + window * 1_000 + part] * 10, f"{window}/{part}", shift=shift) for part in range(3)
        ]
        produce(bootstrap, topic, [(key, f.encode()) for f in frames], headers={"traceparent": TRACEPARENT})
    late = frame_at(MODEL, [first], "late").encode()
    wide = frame_at(MODEL, [first], "wide", layers={"fc": WIDTH + 1}).encode()
    produce(bootstrap, topic, [(key, frames[-1].encode()), (key, late), (key, wide), (key, b"poison")])
    produce(bootstrap, topic, [(key, Heartbeat(MODEL, now_ms()).encode())])


def _run(bootstrap: str, folder: Path, reader: InMemoryMetricReader) -> MetricsData:
    in_the_way = folder / "evidence"
    in_the_way.mkdir()
    (in_the_way / MODEL).write_text("a file where a folder should be")
    runtime = build_runtime(
        load_settings(
            bootstrap=bootstrap,
            reference=(judging_reference(folder, MODEL),),
            guarantee="at-least-once",
            window_ms=1_000,
            lateness_ms=800,
            future_skew_ms=500,
            expected_delay_ms=300,
            idle_ms=3_600_000,
            false_alarms_per_month=500_000,
            evidence=str(in_the_way),
            detection_rate=True,
            device="cpu",
        )
    )
    runtime.start()
    try:
        for _ in range(400):
            runtime.turn()
            if len(read_all(bootstrap, SCORES.full_name())) >= 5:
                break
        data = reader.get_metrics_data()
    finally:
        runtime.close()
    assert data is not None
    return data


def points(watch: Watch, name: str) -> dict[str, float]:
    """Sum, count or value by the attributes' values, joined."""
    found = {}
    for resource in watch.metrics.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == name:
                    for point in metric.data.data_points:
                        key = "/".join(str(value) for _, value in sorted((point.attributes or {}).items()))
                        found[key] = point.count if hasattr(point, "count") else point.value
    return found


def test_every_instrument_has_fired(watch: Watch) -> None:
    names = {
        metric.name
        for resource in watch.metrics.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert names == EXPECTED


def test_records_and_rows_are_counted_by_what_became_of_them(watch: Watch) -> None:
    assert points(watch, "hydrophone.records") == {
        "accepted": 16,
        "duplicate": 1,
        "dead_lettered": 2,
        "heartbeats": 1,
    }
    assert points(watch, "hydrophone.rows") == {"windowed": 150, "late": 1}


def test_windows_alerts_and_failures_are_counted(watch: Watch) -> None:
    assert points(watch, "hydrophone.windows") == {"m/tested": 5}
    assert sum(points(watch, "hydrophone.alerts").values()) >= 1
    rejecting = sum(score.rejected for score in watch.scores)
    assert rejecting >= 2
    assert points(watch, "hydrophone.evidence.failures") == {"": rejecting}
    assert points(watch, "hydrophone.test.duration") == {"": 5}
    assert points(watch, "hydrophone.window.close_latency") == {"": 5}
    assert points(watch, "hydrophone.transactions")["committed"] >= 1
    assert watch.scores[-1].joint is not None
    assert points(watch, "hydrophone.window.p_value") == {"m": watch.scores[-1].joint.p_value}
    assert points(watch, "hydrophone.processing.lag") == {"0": 0}


def test_every_accepted_row_is_judged_once_and_each_frame_timed(watch: Watch) -> None:
    decided = points(watch, "hydrophone.verdicts")
    assert set(decided) <= {"accept/m", "abstain/m", "reject/m"}
    assert sum(decided.values()) == sum(points(watch, "hydrophone.rows").values()) == 151
    assert decided["reject/m"] >= 40, "the shifted rows"
    assert points(watch, "hydrophone.verdict.latency") == {"": 16}
    assert points(watch, "hydrophone.verdicts.under_way") == {"": 0}


def test_the_published_metrics_are_told_of_the_last_window(watch: Watch) -> None:
    last = watch.scores[-1]
    assert points(watch, "hydrophone.window.requests") == {"m": sum(score.counts.seen for score in watch.scores)}
    assert last.detection_rate is not None
    assert points(watch, "hydrophone.window.detection_rate") == {"m": last.detection_rate}
    assert points(watch, "hydrophone.window.baseline_detection_rate") == {"m": last.baseline_detection_rate}


def test_each_window_has_one_span_linked_to_its_producers(watch: Watch) -> None:
    spans = [span for span in watch.spans if span.name == "hydrophone.window"]

    assert len(spans) == len(watch.scores) == 5
    for span in spans:
        assert [f"{link.context.trace_id:032x}" for link in span.links] == [PRODUCER_TRACE]
    told = {score.trace.traceparent for score in watch.scores if score.trace}
    assert told == {traceparent_of(span) for span in spans}  # type: ignore[arg-type]


def test_without_an_sdk_everything_is_silent() -> None:
    telemetry = Telemetry()
    span = telemetry.window_span("m", 0, ["not a traceparent", TRACEPARENT.decode()])
    telemetry.windows.add(1, {"model": "m", "status": "tested"})
    span.end()
    assert traceparent_of(trace.INVALID_SPAN) is None


def test_the_lag_of_either_stage_is_told_by_partition() -> None:
    reader = InMemoryMetricReader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "get_meter", MeterProvider([reader]).get_meter)
        Telemetry().observe_lag(lambda: {0: 7}, lambda: {3: 2})

    collected = reader.get_metrics_data()
    assert collected is not None
    watch = Watch(collected, (), [])
    assert points(watch, "hydrophone.processing.lag") == {"0": 7}
    assert points(watch, "hydrophone.merging.lag") == {"3": 2}
