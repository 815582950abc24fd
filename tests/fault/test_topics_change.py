"""Topics that are not there, or not the same any more, are told by name; partitions added live lose nothing.

A topic missing at the start is exit code 3. With more partitions a model's key may map to another one: windows that
were complete before stay whole, and from then on the new partition has them; a window whose rows are on both gets a
score for each part, which name their partitions, and an event says so. Deleted, or created anew: `test_gap.py`.
"""

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]
from deploy.broker.kraft import KraftBroker
from tests.support.processor import await_until, small_reference, start
from tests.support.stage import QUICK_SESSION, Stage
from tests.support.thorough import only_when_thorough

from hydrophone.streams.topics import ACTIVATIONS, STATE

pytestmark = pytest.mark.broker

MOVES, STAYS = "two", "one"
"""murmur2 places `two` on 1 of 2 partitions and on 0 of 3, `right` on 1 of either."""


def test_missing_topics_are_named_with_the_remedy(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    reference = small_reference(tmp_path, "one")

    with start(broker.bootstrap, topic_prefix, tmp_path, reference=reference) as processor:
        assert processor.wait(120) == 3

    assert f"`{ACTIVATIONS.full_name(topic_prefix)}`" in processor.log
    assert "hydrophone topics create" in processor.log


@only_when_thorough
def test_partitions_added_between_windows_keep_every_window_whole(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   1 of 2 partitions   [ 0 )[ 1 )...[ 5 )|
    #   0 of 3 partitions                     |[ 6 )...[ 11 )       windows closed, partitions added, traffic goes on
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, [MOVES, "right"], partitions=2)
    with stage.in_process(kafka=QUICK) as processor:
        stage.send_windows(range(6))
        stage.await_scores_of(2 * 4)
        stage.send(*(frame for frame in stage.frames(8, rows=1, parts=1)))
        stage.await_scores_of(2 * 6)
        _add_partition(stage)
        stage.send_windows(range(10, 16))
        stage.close_windows()
        stage.await_scores()
        await_until(lambda: bool(stage.events()), "the move was announced")
        processor.drain()

    found = stage.assert_every_window_once(windows=2 * 13)
    (event,) = {(event.kind, event.model, event.partition) for event in stage.events()}
    assert event == ("model_on_two_partitions", MOVES, 0)
    assert {score.source.partition for score in found.scores if score.model == MOVES} == {0, 1}


def test_window_with_rows_on_two_partitions_is_scored_in_parts_and_announced(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   1 of 2 partitions   [ 0 )[ 1 )[ 2 .
    #   0 of 3 partitions               |. 2 )[ 3 )      partitions added in the middle of window 2
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, [MOVES, "right"], partitions=2)
    with stage.in_process(kafka=QUICK) as processor:
        stage.send_windows(range(2))
        stage.send(*stage.frames(2)[:2])
        stage.await_scores_of(2)
        _add_partition(stage)
        stage.send(*stage.frames(2)[2:])
        stage.send_windows(range(3, 5))
        stage.close_windows()
        parts = lambda: [s for s in stage.reckon().scores if (s.model, _window(stage, s)) == (MOVES, 2)]  # noqa: E731
        await_until(lambda: len(parts()) == 2, "both parts were scored")
        await_until(lambda: bool(stage.events()), "an event says so")
        processor.drain()

    assert sorted((score.source.partition, score.counts.seen) for score in parts()) == [(0, 20), (1, 10)]
    assert {(event.kind, event.model) for event in stage.events()} == {("model_on_two_partitions", MOVES)}


QUICK = {"topic.metadata.refresh.interval.ms": "500", **QUICK_SESSION}
"""New partitions are noticed at the next look at the topic, five minutes apart unless told otherwise."""


def _add_partition(stage: Stage) -> None:
    """`state` first: a partition of `activations` without its own of `state` could not be recovered."""
    admin = AdminClient({"bootstrap.servers": stage.bootstrap})
    for topic in (STATE, ACTIVATIONS):
        for answer in admin.create_partitions([NewPartitions(topic.full_name(stage.prefix), 3)]).values():
            answer.result(10)
    known = lambda: len(admin.list_topics(stage.topic, timeout=5).topics[stage.topic].partitions)  # noqa: E731
    await_until(lambda: known() == 3, "producers are told of the new partition")


def _window(stage: Stage, score: object) -> int:
    return (score.window.start_ms - stage.first_ms) // 1_000  # type: ignore[attr-defined]
