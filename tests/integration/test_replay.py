"""The same records give the same decisions, wherever and whenever they are processed.

What one prefix holds is copied to another, record by record, and processed by another group in another folder: windows,
statuses, counts, p-values, content hashes and ids are equal, alerts included.
"""

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from deploy.broker.kraft import KraftBroker
from tests.support.broker import read_all
from tests.support.processor import (
    await_until,
    events_of,
    frame_at,
    make_topics,
    scores_of,
    small_reference,
    start,
)

from hydrophone.schemas.alert import Alert
from hydrophone.schemas.frame import Heartbeat
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import ACTIVATIONS, ALERTS

pytestmark = pytest.mark.broker

MODELS = ("one", "two")
WINDOWS = 12


def test_same_records_give_the_same_scores_and_alerts(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   p of `one`     . . . . . . . . ! ! ! !      ! shifted rows; the rule rings within these
    references = [small_reference(tmp_path, model) for model in MODELS]
    again = f"again-{topic_prefix}"
    _write(broker, topic_prefix)
    first = _process(broker, topic_prefix, tmp_path, references)
    make_topics(broker.bootstrap, again)
    log = read_all(broker.bootstrap, ACTIVATIONS.full_name(topic_prefix))
    _send(broker, again, [(record.key, record.value) for record in log])
    second = _process(broker, again, tmp_path, references)

    assert len(first) == len(MODELS) * (WINDOWS + 1)
    assert [_decision(score) for score in first] == [_decision(score) for score in second]
    alerts = [events_of(broker.bootstrap, prefix, ALERTS, Alert) for prefix in (topic_prefix, again)]
    assert alerts[0], "the shifted windows rang"
    assert [alert.model_copy(update=SAME) for alert in alerts[0]] == [
        alert.model_copy(update=SAME) for alert in alerts[1]
    ]
    assert {alert.score_id for alert in alerts[0]} <= {score.id for score in first}


SAME = {"evidence": None, "suspects": ()}
"""Both name the topic the rows were read from, or the folder they were put in."""


def _decision(score: WindowScore) -> dict[str, Any]:
    return score.model_dump(exclude={"source", "suspects", "evidence", "trace"})


def _write(broker: KraftBroker, prefix: str) -> None:
    make_topics(broker.bootstrap, prefix)
    first = now_ms() // 1_000 * 1_000 - 100_000
    records: list[tuple[bytes | None, bytes | None]] = []
    for window in range(WINDOWS):
        for model in MODELS:
            shift = 2.0 if model == "one" and window >= 8 else 0.0
            for part in range(3):
                times = [first + window * 1_000 + part * 300] * 10
                frame = frame_at(model, times, f"{model}/{window}/{part}", shift=shift)
                records.append((model.encode(), frame.encode()))
    few = [(model, frame_at(model, [first + WINDOWS * 1_000] * 3, f"few/{model}")) for model in MODELS]
    records += [(model.encode(), frame.encode()) for model, frame in few]
    records.append((b"one", Heartbeat("one", now_ms()).encode()))
    _send(broker, prefix, records)


def _send(broker: KraftBroker, prefix: str, records: list[tuple[bytes | None, bytes | None]]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "partitioner": "murmur2_random"})
    for key, value in records:
        producer.produce(ACTIVATIONS.full_name(prefix), value, key)
    assert producer.flush(30) == 0


def _process(broker: KraftBroker, prefix: str, folder: Path, references: list[Path]) -> list[WindowScore]:
    options = {"reference": references, "false_alarms_per_month": 2_000, "evidence": folder / prefix}
    with start(broker.bootstrap, prefix, folder, name=prefix, **options) as processor:
        wanted = len(MODELS) * (WINDOWS + 1)
        await_until(lambda: len(scores_of(broker.bootstrap, prefix)) >= wanted, "every window was scored")
        assert processor.drain() == 0
    return sorted(scores_of(broker.bootstrap, prefix), key=lambda score: (score.model, score.window.start_ms))
