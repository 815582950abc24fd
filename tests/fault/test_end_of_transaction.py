"""When the end of a transaction cannot be known, the producer is rebuilt and what is committed decides.

Twice over: the broker dies between produce and commit, and the broker commits but its answer is lost. A late EndTxn
could then hit the next transaction (KIP-890 is not in the client), so the producer makes way for a new one, state is
thrown away, and work goes on from the committed offsets.
"""

import logging
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from deploy.broker.kraft import KraftBroker
from tests.support.stage import Stage
from tests.support.thorough import only_when_thorough

from hydrophone.streams.kafka import delivery
from hydrophone.streams.kafka.delivery import ExactlyOnce

pytestmark = pytest.mark.broker


def test_answer_lost_after_the_commit(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    #   transactions   1 2 3 4 ...      the 2nd and 5th are committed and the answer is lost
    rebuilt = _count_rebuilds(monkeypatch)
    reached: list[str] = []

    def lose_answer(place: str) -> None:
        reached.append(place)
        if place == "after-commit" and reached.count(place) in (2, 5):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the answer to EndTxn was lost"))

    monkeypatch.setattr(delivery, "reach", lose_answer)
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one", "two"])
    with stage.in_process(batch=8) as processor:
        stage.send_windows(range(16))
        stage.close_windows()
        stage.await_scores()
        processor.drain()

    assert len(rebuilt) == 2
    stage.assert_every_window_once(windows=32)


@only_when_thorough
def test_broker_dies_between_produce_and_commit(
    own_broker: KraftBroker,
    topic_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    #   worker   ── produce ──────── commit? ── recover ──
    #   broker   ───────────✗  ──────────────────────────      -9, and back
    caplog.set_level(logging.WARNING, "hydrophone")
    reached: list[str] = []

    def kill_broker(place: str) -> None:
        reached.append(place)
        if place == "after-produce" and reached.count(place) == 3:
            own_broker.kill()
            own_broker.restart()

    monkeypatch.setattr(delivery, "reach", kill_broker)
    stage = Stage.of(own_broker.bootstrap, topic_prefix, tmp_path, ["one", "two"])
    with stage.in_process(batch=8) as processor:
        stage.send_windows(range(16))
        stage.close_windows()
        stage.await_scores(timeout_s=90)
        processor.drain()

    assert reached.count("after-produce") > 3
    stage.assert_every_window_once(windows=32)


def _count_rebuilds(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    found: list[None] = []
    plainly = ExactlyOnce._rebuild

    def rebuild(self: ExactlyOnce) -> None:
        found.append(None)
        plainly(self)

    monkeypatch.setattr(ExactlyOnce, "_rebuild", rebuild)
    return found
