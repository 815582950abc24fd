"""Without transactions: outputs first, then offsets. A crash in between repeats outputs and loses none.

The processor runs in this process against the embedded broker.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.support.broker import produce, read_all
from tests.support.processor import frame_at, small_reference

from hydrophone.schemas.alert import Alert
from hydrophone.schemas.frame import Heartbeat
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.assembly import build_runtime
from hydrophone.streams.clock import now_ms
from hydrophone.streams.kafka.delivery import AtLeastOnce
from hydrophone.streams.kafka.embedded import EmbeddedBroker
from hydrophone.streams.outputs import Output
from hydrophone.streams.runtime import Runtime
from hydrophone.streams.settings import load_settings
from hydrophone.streams.topics import ACTIVATIONS, ALERTS, SCORES, STATE, TOPICS, with_partitions

MODEL = "m"
WINDOWS = 6


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedBroker]:
    monkeypatch.chdir(tmp_path)
    partitions = {topic.full_name(): topic.partitions for topic in with_partitions(TOPICS, 1)}
    with EmbeddedBroker(partitions) as running:
        first = now_ms() // 1_000 * 1_000 - 60_000
        for window in range(WINDOWS):
            frames = [frame_at(MODEL, [first + window * 1_000] * 10, f"{window}/{n}", shift=3.0) for n in range(3)]
            produce(running.bootstrap, ACTIVATIONS.full_name(), [(MODEL.encode(), f.encode()) for f in frames])
        produce(running.bootstrap, ACTIVATIONS.full_name(), [(MODEL.encode(), Heartbeat(MODEL, now_ms()).encode())])
        yield running


def runtime_of(broker: EmbeddedBroker, folder: Path) -> Runtime:
    return build_runtime(
        load_settings(
            bootstrap=broker.bootstrap,
            reference=(small_reference(folder, MODEL),),
            guarantee="at-least-once",
            window_ms=1_000,
            lateness_ms=800,
            future_skew_ms=500,
            expected_delay_ms=300,
            idle_ms=3_600_000,
            false_alarms_per_month=500_000,
            evidence=str(folder / "evidence"),
            device="cpu",
        )
    )


def run(broker: EmbeddedBroker, folder: Path) -> None:
    """Until every window has a score."""
    runtime = runtime_of(broker, folder)
    runtime.start()
    try:
        for _ in range(400):
            runtime.turn()
            if len({score.id for score in scores(broker)}) == WINDOWS:
                return
        raise AssertionError("not every window was scored")
    finally:
        runtime.close()


def turn_for_ever(runtime: Runtime) -> None:
    for _ in range(400):
        runtime.turn()


def scores(broker: EmbeddedBroker) -> list[WindowScore]:
    records = read_all(broker.bootstrap, SCORES.full_name())
    return [WindowScore.model_validate_json(record.value or b"") for record in records]


def alerts(broker: EmbeddedBroker) -> list[Alert]:
    return [Alert.model_validate_json(r.value or b"") for r in read_all(broker.bootstrap, ALERTS.full_name())]


def test_every_window_is_scored_once_where_nothing_fails(broker: EmbeddedBroker, tmp_path: Path) -> None:
    run(broker, tmp_path)
    run(broker, tmp_path)

    assert Counter(score.window.start_ms for score in scores(broker)).most_common(1)[0][1] == 1
    assert len(scores(broker)) == WINDOWS
    assert alerts(broker)


@pytest.mark.parametrize("fatal", [SCORES, STATE], ids=lambda topic: topic.name)
def test_crash_after_outputs_repeats_them_with_the_same_content_and_loses_no_alert(
    broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: object
) -> None:
    #   scores, alerts ✗ state ✗ offsets        dies at one ✗, then all is done again
    class Crash(BaseException):
        pass

    genuine = AtLeastOnce._send

    def crash(self: AtLeastOnce, outputs: Sequence[Output]) -> None:
        genuine(self, outputs)
        is_memory = bool(outputs) and all(output.is_memory for output in outputs)
        if outputs and is_memory == (fatal is STATE):
            raise Crash

    monkeypatch.setattr(AtLeastOnce, "_send", crash)
    runtime = runtime_of(broker, tmp_path)
    runtime.start()
    with pytest.raises(Crash):
        turn_for_ever(runtime)
    runtime._abandon()
    runtime.close()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    first = {alert.id: alert for alert in alerts(broker)}
    told = scores(broker)
    assert first

    run(broker, tmp_path)
    again = runtime_of(broker, tmp_path)
    again.start()
    for _ in range(40):
        again.turn()
    again.close()

    after = scores(broker)
    assert {score.id for score in told} <= {score.id for score in after}
    by_id = {score.id: score for score in told}
    assert all(by_id.get(s.id, s).content_sha256 == s.content_sha256 for s in after), "a repetition is the same"
    assert {alert.id for alert in alerts(broker)} >= first.keys(), "no alert is lost"
    assert all(first.get(a.id, a).p_value == a.p_value for a in alerts(broker))


def test_offsets_are_committed_behind_the_outputs(broker: EmbeddedBroker, tmp_path: Path) -> None:
    run(broker, tmp_path)

    reader = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "hydrophone"})
    (place,) = reader.committed([TopicPartition(ACTIVATIONS.full_name(), 0)], timeout=10)
    reader.close()

    assert place.offset == 3 * WINDOWS + 1
    assert place.metadata
