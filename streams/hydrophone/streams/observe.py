"""Exporters for the instruments of `telemetry.py`: Prometheus on loopback, OTLP over HTTP. Off unless asked for."""

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import start_http_server

__all__ = ["export"]

LOOPBACK = "127.0.0.1"


def export(*, metrics_port: int | None, otlp_endpoint: str | None) -> None:
    """Call before any instrument is made."""
    readers: list[MetricReader] = []
    resource = Resource.create({"service.name": "hydrophone"})
    if metrics_port is not None:
        start_http_server(metrics_port, addr=LOOPBACK)
        readers.append(PrometheusMetricReader())
    tracer = TracerProvider(resource=resource)
    if otlp_endpoint is not None:
        base = otlp_endpoint.rstrip("/")
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(f"{base}/v1/metrics")))
        tracer.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{base}/v1/traces")))
    trace.set_tracer_provider(tracer)
    metrics.set_meter_provider(MeterProvider(readers, resource=resource))
