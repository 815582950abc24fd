"""A record too large for memory, or an output too large for its topic, is told by name and never lost in silence.

In: what the topic takes is processed or dead-lettered by its place, be it small only because it was compressed. Out: an
output that its topic refuses ends the processor with a message that names the topic; once the topic takes it, work goes
on where it was committed and nothing is missing or doubled.
"""

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from deploy.broker.kraft import KraftBroker
from tests.support.broker import read_all
from tests.support.processor import frame_at
from tests.support.stage import Stage

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.streams.topics import DEADLETTER, SCORES

pytestmark = pytest.mark.broker

MIB = 1 << 20


def test_bombs_are_dead_lettered_by_their_place(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   good | 20 MiB of zeros, 60 kB on the wire | good
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one"])
    bomb = frame_at("one", [stage.first_ms] * 4, "bomb").encode() + bytes(20 * MIB)
    with stage.in_process() as processor:
        stage.send_windows(range(3))
        for kind in ("gzip", "zstd"):
            stage.send(("one", bomb), **{"message.max.bytes": 64 * MIB, "compression.type": kind})
        stage.send_windows(range(3, 6))
        stage.close_windows()
        stage.await_scores()
        processor.drain()

    found = stage.assert_every_window_once(windows=6)
    assert len(found.batch.dead) == 2
    letters = read_all(broker.bootstrap, DEADLETTER.full_name(topic_prefix))
    assert [(letter.value, letter.headers["omitted-bytes"]) for letter in letters] == [
        (None, str(len(bomb)).encode())
    ] * 2


def test_output_too_large_for_its_topic_ends_the_processor_and_is_made_up_for(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   scores take 1 MiB | 600 bytes: refused, the processor ends | 1 MiB: it goes on
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one"])
    stage.send_windows(range(4))
    with stage.in_process() as processor:
        stage.await_scores_of(2)
        _limit(broker.bootstrap, SCORES.full_name(topic_prefix), 600)
        stage.send_windows(range(4, 8))
        error = processor.wait(60)
    assert isinstance(error, ConfigurationError)
    assert f"`{SCORES.full_name(topic_prefix)}` refuses an output" in str(error)

    _limit(broker.bootstrap, SCORES.full_name(topic_prefix), MIB)
    with stage.in_process() as processor:
        stage.close_windows()
        stage.await_scores()
        processor.drain()
    stage.assert_every_window_once(windows=8)


def _limit(bootstrap: str, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(10)
