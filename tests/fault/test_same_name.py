"""Of two processors under one name the later one stays; the earlier ends and says so.

A named processor that is started again must get its place although the broker still counts on the first. So the last to
come wins, as with the transactional id, and the first does not go on beside it or wait in silence.
"""

from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.stage import Stage

from hydrophone.schemas.errors import Fenced

pytestmark = pytest.mark.broker


def test_first_processor_of_a_name_ends_when_another_takes_it(
    broker: KraftBroker, topic_prefix: str, tmp_path: Path
) -> None:
    #   first    ──────────✗
    #   second        ──────────
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one"])
    stage.send_windows(range(4))
    with stage.in_process(instance_id="same") as first:
        stage.await_scores_of(2)
        with stage.in_process(instance_id="same"):
            error = first.wait(60)
            stage.send_windows(range(4, 8))
            stage.await_scores_of(6)

    assert isinstance(error, Fenced)
