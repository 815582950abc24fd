"""A record sent twice, or five times, counts once.

Producers repeat: a retry without idempotence, a service that sends its last minute again after a restart. As long as
one of its windows is open a repetition is recognised and counted as `duplicate`; later it is late. Either way sample,
counts and p-value are those of the rows themselves.
"""

import random
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.stage import Stage

pytestmark = pytest.mark.broker

SEED = 5


def test_repeated_records_change_neither_counts_nor_samples(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   sent   a b c a | d d e f d | a b c      the last three after their window has closed: late
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one", "two"], partitions=3)
    chance = random.Random(SEED)
    with stage.in_process() as processor:
        for window in range(12):
            frames = stage.frames(window)
            repeated = frames + chance.choices(frames, k=5)
            chance.shuffle(repeated)
            stage.send(*repeated)
        stage.send(*stage.frames(2))
        stage.close_windows()
        stage.await_scores()
        processor.drain()

    found = stage.assert_every_window_once(windows=24)
    assert found.batch.duplicates >= 12
    assert all(window.seen == 30 for window in found.batch.windows.values())
    assert len(found.batch.late) == 6
