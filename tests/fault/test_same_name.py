"""A second processor under the name of one that is at work ends and says so; it does not wait in silence for ever.

The broker refuses a member whose name is taken (KIP-848), and the client never asks again: a process that went on would
look alive and do nothing. What starts it again finds the name free once the first is gone, or its session has ended.
"""

from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.stage import Stage

from hydrophone.schemas.errors import HydrophoneError

pytestmark = pytest.mark.broker


def test_second_processor_of_a_name_ends(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   first    ────────────────
    #   second        ──✗
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one"])
    stage.send_windows(range(4))
    with stage.in_process(instance_id="same"):
        stage.await_scores_of(2)
        with stage.in_process(instance_id="same") as second:
            error = second.wait(40)

    assert isinstance(error, HydrophoneError)
    assert "instance" in str(error).lower()
