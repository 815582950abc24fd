"""Every instrument, with unit and meaning, and nowhere else. Exporters are set up in `observe.py`."""

from collections.abc import Callable, Iterable

from opentelemetry import metrics, trace
from opentelemetry.metrics import Observation
from opentelemetry.propagate import extract
from opentelemetry.trace import Link, Span, get_current_span

__all__ = ["Telemetry", "traceparent_of"]

Lags = Callable[[], dict[int, int]]


class Telemetry:
    """Instruments of one processor. Without an SDK every call is a no-op.

    Attributes are bounded: outcomes and partitions are few, models are the deployment's own.
    """

    def __init__(self) -> None:
        meter = metrics.get_meter("hydrophone")
        self._tracer = trace.get_tracer("hydrophone")
        self.records = meter.create_counter(
            "hydrophone.records", "{record}", "Records read from `activations`, by outcome, each once"
        )
        self.rows = meter.create_counter("hydrophone.rows", "{row}", "Rows of accepted frames, by outcome, each once")
        self.windows = meter.create_counter("hydrophone.windows", "{window}", "Windows closed, by status and model")
        self.alerts = meter.create_counter("hydrophone.alerts", "{alert}", "Alerts raised, by model and severity")
        self.test_duration = meter.create_histogram("hydrophone.test.duration", "s", "Time one window test took")
        self.close_latency = meter.create_histogram(
            "hydrophone.window.close_latency", "s", "From the record that closed a window to its committed score"
        )
        self.verdicts = meter.create_counter(
            "hydrophone.verdicts", "{row}", "Rows judged one by one, by model and decision"
        )
        self.verdict_duration = meter.create_histogram(
            "hydrophone.verdict.duration", "s", "Time one batch of rows took to be judged"
        )
        self.verdict_latency = meter.create_histogram(
            "hydrophone.verdict.latency", "s", "From a frame's arrival at the broker to its committed verdicts"
        )
        self.p_value = meter.create_gauge(
            "hydrophone.window.p_value", "1", "Joint p-value of the last window, by model"
        )
        self.requests = meter.create_counter(
            "hydrophone.window.requests", "{request}", "Inference requests (rows) of closed windows, by model"
        )
        self.detection_rate = meter.create_gauge(
            "hydrophone.window.detection_rate", "1", "Share of the last window's re-draws that differ, by model"
        )
        self.baseline_detection_rate = meter.create_gauge(
            "hydrophone.window.baseline_detection_rate", "1", "The same share of the reference against itself, by model"
        )
        self.transactions = meter.create_counter("hydrophone.transactions", "{transaction}", "Commits, by outcome")
        self.evidence_failures = meter.create_counter(
            "hydrophone.evidence.failures", "{window}", "Windows whose evidence could not be stored"
        )
        self._meter = meter

    def observe_lag(self, lags: Lags, merging: Lags) -> None:
        """Records from what was processed to a partition's end. Committed lag is always a window deep; this is not."""

        def observed(of: Lags) -> Iterable[Observation]:
            return [Observation(lag, {"partition": str(partition)}) for partition, lag in of().items()]

        self._meter.create_observable_gauge(
            "hydrophone.processing.lag",
            [lambda _: observed(lags)],
            "{record}",
            "Records of `activations` not yet processed, by partition",
        )
        self._meter.create_observable_gauge(
            "hydrophone.merging.lag",
            [lambda _: observed(merging)],
            "{record}",
            "Records of `partials` not yet processed, by partition",
        )

    def observe_tests(self, under_way: Callable[[], int]) -> None:
        """Window tests begun and not done; at the bound, reading waits."""
        self._meter.create_observable_gauge(
            "hydrophone.tests.under_way", [lambda _: [Observation(under_way())]], "{window}", "Windows under test"
        )

    def observe_verdicts(self, rows: Callable[[], int]) -> None:
        """Rows that arrived and are not judged yet; at the bound, reading waits."""
        self._meter.create_observable_gauge(
            "hydrophone.verdicts.under_way", [lambda _: [Observation(rows())]], "{row}", "Rows waiting for verdicts"
        )

    def window_span(self, model: str, start_ms: int, traceparents: Iterable[str]) -> Span:
        """One span per window, linked to the requests that filled it."""
        links = []
        for traceparent in traceparents:
            context = get_current_span(extract({"traceparent": traceparent})).get_span_context()
            if context.is_valid:
                links.append(Link(context))
        attributes: dict[str, str | int] = {"hydrophone.model": model, "hydrophone.window.start_ms": start_ms}
        return self._tracer.start_span("hydrophone.window", links=links, attributes=attributes)


def traceparent_of(span: Span) -> str | None:
    """W3C trace context of a span; None without an SDK."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
