"""What a publisher sends is scored as if it had been tested in one go, and a restart neither loses nor doubles it.

Scores read with `read_committed` equal `Reference.test` on the rows of their windows, computed from the topic alone:
the same rows, the same p-value, the same content hash. A processor that is asked to end (SIGTERM) exits with 0; the
next one of its group goes on where it stopped, in the middle of a window.
"""

import time
from collections import Counter
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.batch import BatchRules, batch_of
from tests.support.broker import read_all
from tests.support.processor import (
    SAMPLING_KEY,
    WIDTH,
    Processor,
    await_until,
    frame_at,
    load,
    make_topics,
    scores_of,
    small_reference,
    start,
)

from hydrophone.schemas.event import WindowBounds
from hydrophone.streams import Publisher
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import ACTIVATIONS, ALERTS, EVENTS

pytestmark = pytest.mark.broker

MODEL = "scored"
K = 32
RULES = BatchRules(1_000, 800, 500, K, SAMPLING_KEY, {MODEL: {"fc": WIDTH}})


def test_published_rows_are_scored_once_as_in_a_batch_across_a_restart(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   windows     [ 0 )[ 1 )[ 2 )[ 3 )[ 4 )[ 5 ) ...
    #   processor   ───── first ──┤ ├─── second ──────
    make_topics(broker.bootstrap, topic_prefix)
    reference = small_reference(tmp_path, MODEL)
    with Publisher(broker.bootstrap, model=MODEL, topic_prefix=topic_prefix, heartbeat_ms=100) as publisher:
        with start(
            broker.bootstrap, topic_prefix, tmp_path, name="first", reference=reference, k=K, is_forked=False
        ) as first:
            _publish(publisher, seconds=2.5)
            await_until(lambda: len(scores_of(broker.bootstrap, topic_prefix)) >= 1, "a first score")
            _publish(publisher, seconds=0.5)
            assert first.drain() == 0
        _publish(publisher, seconds=1.5, shift=3.0)
        with start(broker.bootstrap, topic_prefix, tmp_path, name="second", reference=reference, k=K) as second:
            expected = batch_of(read_all(broker.bootstrap, ACTIVATIONS.full_name(topic_prefix)), RULES).windows
            await_until(lambda: len(scores_of(broker.bootstrap, topic_prefix)) >= len(expected), "every window's score")
            assert second.drain() == 0
        assert publisher.close() == 0

    scores = scores_of(broker.bootstrap, topic_prefix)
    assert Counter((s.model, s.window.start_ms) for s in scores) == Counter(list(expected))
    tested = load(reference)
    for score in scores:
        window = expected[score.model, score.window.start_ms]
        result = tested.test(window.sampled_rows(K))
        bounds = WindowBounds(start_ms=window.start_ms, end_ms=window.start_ms + 1_000)
        assert (score.counts.seen, score.status) == (window.seen, result.status)
        assert (score.joint.p_value if score.joint else None) == result.p_value
        assert score.content_sha256 == result.content_sha256(window=bounds, seen=window.seen, k=K)
        assert score.source is not None
        assert score.source.first_offset == window.first_offset
    assert any(score.rejected for score in scores), "the shifted rows are different"
    assert all(score.evidence for score in scores if score.rejected)
    assert not read_all(broker.bootstrap, EVENTS.full_name(topic_prefix))
    assert not read_all(broker.bootstrap, ALERTS.full_name(topic_prefix)), "one odd window is no alert"
    assert not _complaints(first) + _complaints(second)


def _publish(publisher: Publisher, *, seconds: float, shift: float = 0.0) -> None:
    """About forty rows a window, in frames of five."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert publisher.publish(frame_at(MODEL, [now_ms()] * 5, now_ms(), shift=shift))
        time.sleep(0.12)


def _complaints(processor: Processor) -> list[str]:
    return [line for line in processor.log.splitlines() if '"level": "error"' in line or "Traceback" in line]
