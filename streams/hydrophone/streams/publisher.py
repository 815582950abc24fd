"""Sends the frames of one inference service to Kafka, from a thread of its own.

How frames are joined and split is in `batching.py`; the queue the service writes into is in `outbox.py`.
"""

import logging
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import partial
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from opentelemetry import propagate

from hydrophone.schemas.errors import SettingsError
from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.signature import SIGNATURE_HEADER, SigningKey
from hydrophone.streams.batching import join, layout, owned, split
from hydrophone.streams.bounded_log import BoundedLog
from hydrophone.streams.clock import monotonic_ms, now_ms
from hydrophone.streams.frame_sink import SinkStats, Tally, require_model
from hydrophone.streams.outbox import Outbox, Waiting
from hydrophone.streams.security import Security, librdkafka
from hydrophone.streams.topics import ACTIVATIONS, DEFAULT_PREFIX

__all__ = ["CONTENT_TYPE", "Publisher"]

CONTENT_TYPE: Final = "application/vnd.hydrophone.frame"

FULL_WAIT_MS: Final = 1000
"""How long the publisher's thread waits for room in librdkafka's queue before it gives a record up."""

POLL_MS: Final = 50
"""How often delivery reports are looked at while records are under way."""

ENVELOPE_BYTES: Final = 16_384
"""Room for key and headers beside the frame."""

DeliveryReport = Callable[[KafkaError | None, Message], None]

DEFAULTS: Final[Mapping[str, Any]] = {
    "enable.idempotence": True,  # a retry neither doubles nor reorders
    "partitioner": "murmur2_random",  # what Java clients and Faust use: whoever sends, a model has one partition
    "delivery.timeout.ms": 30_000,  # activations older than that are late anyway
    "queue.buffering.max.kbytes": 65_536,  # librdkafka's default of 1 GiB is not for somebody else's process
}


class Publisher:
    """Frames of `model`, on their way to Kafka. `publish` never blocks and never raises; `stats` says what was lost.

    The queue is bounded in rows. A row costs its layers' widths times four bytes: 8,192 rows of 2,000 numbers are
    64 MiB. Beside it, librdkafka holds at most another 64 MiB of encoded frames (`queue.buffering.max.kbytes`).

    Kafka client properties are given as keywords with underscores for dots (`security_protocol="SASL_SSL"`), or as
    librdkafka spells them in `kafka={...}`, which wins. TLS and SASL are best given as `security=`, a `Security` or a
    mapping of its fields, which is checked as a whole. `signing_key` signs frames and heartbeats. Raises
    `SettingsError` for what breaks a rule, a property librdkafka refuses, or one that `security` speaks of too.

    A heartbeat says that no row older than now is coming. Where frames bear other event times, as in a replay, set
    `heartbeat_ms=None`. Build the publisher in the process that uses it: threads do not survive a fork.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        model: str,
        topic_prefix: str = DEFAULT_PREFIX,
        queue_rows: int = 8192,
        batch_rows: int = 256,
        linger_ms: int = 50,
        max_frame_bytes: int = 900_000,
        heartbeat_ms: int | None = 1000,
        security: Security | Mapping[str, Any] | None = None,
        signing_key: SigningKey | None = None,
        kafka: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> None:
        _require_positive(queue_rows=queue_rows, batch_rows=batch_rows, max_frame_bytes=max_frame_bytes)
        self._model = require_model(model)
        self._signing_key = signing_key
        self._topic = ACTIVATIONS.full_name(topic_prefix)
        self._linger_ms = linger_ms
        self._max_frame_bytes = max_frame_bytes
        self._heartbeat_ms = heartbeat_ms
        self._log = BoundedLog(logging.getLogger("hydrophone"))
        self._tally = Tally()
        self._reported_drops = 0
        self._outbox = Outbox(limit_rows=queue_rows, batch_rows=batch_rows)
        self._closing = Lock()
        self._deadline_ms = 0
        self._sent_ms = monotonic_ms()
        spelled = {name.replace("_", "."): value for name, value in properties.items()}
        self._producer = self._connect(
            {"message.max.bytes": max(1_000_000, max_frame_bytes + ENVELOPE_BYTES), **DEFAULTS}
            | {"error_cb": self._on_error, "logger": self._log}
            | librdkafka(Security.of(security or {}), spelled | dict(kafka or {}))
            | {"bootstrap.servers": bootstrap}
        )
        self._process = os.getpid()
        self._thread = Thread(target=self._run, name="hydrophone-publisher", daemon=True)
        self._thread.start()

    @property
    def model(self) -> str:
        return self._model

    @property
    def stats(self) -> SinkStats:
        return self._tally.snapshot()

    def publish(self, frame: Frame) -> bool:
        """False when the frame was dropped: queue full, publisher closed, or another model's. Copies the arrays.

        The record gets a `frame_id` of its own; the frame's is not kept, nor are its origins.
        """
        try:
            if frame.model == self._model:
                copy = owned(frame)
                return self.offer(len(copy), lambda: copy)
            self._log.say("model", "a publisher for `%s` drops frames of `%s`", self._model, frame.model)
            self._tally.add("dropped", len(frame))
        except Exception as error:  # noqa: BLE001 - nothing may reach the request path
            self._log.say("unusable", "what was handed over is not a frame: %r", error)
            self._tally.add("dropped", 0)
        return False

    def offer(self, rows: int, build: Callable[[], Frame]) -> bool:
        """As `publish`, but the frame is built on the publisher's thread. Nobody may write to what `build` reads."""
        try:
            if os.getpid() != self._process:
                self._log.say("forked", "a publisher does not survive a fork: build it in the worker process")
            elif self._outbox.put(Waiting(rows, build, _traceparent())):
                self._tally.add("published", rows)
                return True
        except Exception as error:  # noqa: BLE001 - nothing may reach the request path
            self._log.say("unusable", "a frame could not be taken: %r", error)
        self._tally.add("dropped", rows)
        return False

    def close(self, timeout_s: float = 10) -> int:
        """Send what is waiting, for up to `timeout_s`; give back how many accepted rows were never acknowledged.

        Of its whole life, not of this call alone. Rows that `publish` refused are not among them. May be called again.
        """
        with self._closing:
            if not self._outbox.is_closed:
                self._deadline_ms = monotonic_ms() + int(timeout_s * 1000)
                self._outbox.close()
            self._thread.join(timeout_s + FULL_WAIT_MS / 1000)
        stats = self.stats
        return max(0, stats.published - stats.delivered)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, properties: dict[str, Any]) -> Producer:
        try:
            return Producer(properties)
        except (KafkaException, TypeError, ValueError) as error:
            raise SettingsError(f"librdkafka refuses the publisher's Kafka properties: {error}") from error

    # From here on: the publisher's own thread.

    def _run(self) -> None:
        while self._turn():
            pass
        self._finish()

    def _turn(self) -> bool:
        """Send one batch, or a heartbeat when it is time. False when the outbox is closed and empty."""
        was_closed = self._outbox.is_closed  # asked first: what came in before the close is then seen by `take`
        waiting = self._outbox.take(idle_ms=self._idle_ms(), linger_ms=self._linger_ms)
        try:
            if waiting:
                self._send(waiting)
            elif was_closed:
                return False
            elif self._heartbeat_is_due():
                heartbeat = Heartbeat(self._model, now_ms()).encode()
                self._produce(heartbeat, None, self._on_heartbeat)
            self._producer.poll(0)
            self._report_drops()
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever one batch brings
            self._log.say("turn", "the publisher had to skip a step: %r", error)
        return True

    def _idle_ms(self) -> int:
        if len(self._producer):
            return POLL_MS
        if self._heartbeat_ms is None:
            return 1000
        return max(1, self._sent_ms + self._heartbeat_ms - monotonic_ms())

    def _heartbeat_is_due(self) -> bool:
        """Never behind records that are still under way: those speak for themselves."""
        if self._heartbeat_ms is None or len(self._producer):
            return False
        return monotonic_ms() - self._sent_ms >= self._heartbeat_ms

    def _send(self, waiting: list[Waiting]) -> None:
        groups: dict[Hashable, list[tuple[Frame, str | None]]] = {}
        for item in waiting:
            if (frame := self._built(item)) is not None:
                groups.setdefault(layout(frame), []).append((frame, item.traceparent))
        for group in groups.values():
            self._send_joined([frame for frame, _ in group], group[0][1])

    def _built(self, item: Waiting) -> Frame | None:
        try:
            frame = item.build()
            if frame.model != self._model or len(frame) != item.rows:
                raise ValueError(
                    f"{item.rows} rows of `{self._model}` were offered; got {len(frame)} of `{frame.model}`"
                )
        except Exception as error:  # noqa: BLE001 - `build` is the caller's
            self._fail(item.rows, "build", repr(error))
            return None
        # Rows are known by this record from now on; origins would let a publisher claim the rows of another.
        return frame if frame.origins is None else replace(frame, origins=None)

    def _send_joined(self, frames: list[Frame], traceparent: str | None) -> None:
        """Every row ends in exactly one count, whatever fails."""
        rows = sum(map(len, frames))
        try:
            for piece in split(join(frames), self._max_frame_bytes):
                rows -= piece.rows
                if piece.data is None:
                    self._fail(piece.rows, "row_too_large", f"one row exceeds max_frame_bytes={self._max_frame_bytes}")
                elif not self._produce(piece.data, traceparent, partial(self._on_delivery, piece.rows)):
                    self._tally.add("failed", piece.rows)
        except Exception as error:  # noqa: BLE001 - what cannot be encoded is lost, the thread is not
            self._fail(rows, "encode", repr(error))

    def _produce(self, data: bytes, traceparent: str | None, on_delivery: DeliveryReport) -> bool:
        """Hand one record to librdkafka, waiting a while when its queue is full. False when it was not taken."""
        headers: list[tuple[str, str | bytes | None]] = [("content-type", CONTENT_TYPE)]
        if traceparent is not None:
            headers.append(("traceparent", traceparent))
        if self._signing_key is not None:
            headers.append((SIGNATURE_HEADER, self._signing_key.sign(self._model.encode(), data)))
        give_up_ms = monotonic_ms() + FULL_WAIT_MS
        while True:
            try:
                self._producer.produce(self._topic, data, self._model, headers=headers, on_delivery=on_delivery)
            except BufferError:
                if monotonic_ms() >= (min(give_up_ms, self._deadline_ms) if self._outbox.is_closed else give_up_ms):
                    self._log.say("full", "librdkafka's queue is full: is the broker away? Records are lost")
                    return False
                self._producer.poll(POLL_MS / 1000)
            except KafkaException as error:
                self._log.say("produce", "librdkafka refuses a record: %s", error)
                return False
            else:
                self._sent_ms = monotonic_ms()
                return True

    def _finish(self) -> None:
        if self._producer.flush(max(0, self._deadline_ms - monotonic_ms()) / 1000):
            self._producer.purge()  # its delivery reports say that these failed
            self._producer.flush(POLL_MS / 1000)

    def _on_delivery(self, rows: int, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._tally.add("delivered", rows)
        else:
            self._fail(rows, "delivery", error.str())

    def _on_heartbeat(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._tally.add_heartbeat()

    def _on_error(self, error: KafkaError) -> None:
        self._log.say(f"kafka {error.name()}", "Kafka: %s", error.str())

    def _fail(self, rows: int, kind: str, detail: str) -> None:
        self._tally.add("failed", rows)
        self._log.say(kind, "%d rows are lost: %.500s", rows, detail)

    def _report_drops(self) -> None:
        """Said here and not where it happens: a log handler may block."""
        dropped = self.stats.dropped
        if dropped > self._reported_drops:
            self._log.say("dropped", "%d rows were dropped so far: the queue was full, or they were unfit", dropped)
            self._reported_drops = dropped


def _traceparent() -> str | None:
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def _require_positive(**settings: int) -> None:
    faults = [f"`{name}` must be at least 1; got {value}" for name, value in settings.items() if value < 1]
    if faults:
        raise SettingsError("; ".join(faults))
