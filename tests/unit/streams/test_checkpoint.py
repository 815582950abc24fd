"""The text beside a committed offset: read back as written, never too long for a broker, never another program's."""

import json

import pytest

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.streams.checkpoint import LIMIT, Checkpoint, Pending

FULL = Checkpoint(60_000, 1_234, 99, {"a/b": Pending(1, 2, 3), "c": Pending(late=4)})


@pytest.mark.parametrize("checkpoint", [FULL, Checkpoint(1, None, 0), Checkpoint(60_000, -5, 2**62)])
def test_checkpoint_is_read_back_as_written(checkpoint: Checkpoint) -> None:
    assert Checkpoint.decode(checkpoint.encode(), window_ms=checkpoint.window_ms) == checkpoint


@pytest.mark.parametrize("text", [None, ""])
def test_nothing_written_is_no_checkpoint(text: str | None) -> None:
    assert Checkpoint.decode(text, window_ms=60_000) is None


def test_too_many_models_cost_their_counts_and_not_the_position() -> None:
    many = Checkpoint(60_000, 5, 7, {f"model-{number}": Pending(1, 1, 1) for number in range(500)})

    text = many.encode()

    assert len(text.encode()) <= LIMIT
    assert Checkpoint.decode(text, window_ms=60_000) == Checkpoint(60_000, 5, 7)


@pytest.mark.parametrize(
    "text",
    [
        "somebody else's",
        "[]",
        "7",
        json.dumps({"v": 2, "s": 60_000, "w": 1, "p": 1}),
        json.dumps({"v": 1, "s": 60_000, "w": 1}),
        json.dumps({"v": 1, "s": "x", "w": 1, "p": 1}),
        json.dumps({"v": 1, "s": 60_000, "w": 1, "p": 1, "n": {"a": [1, 2, 3, 4]}}),
        json.dumps({"v": 1, "s": 60_000, "w": 1, "p": 1, "n": [1]}),
    ],
)
def test_text_of_another_program_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="choose another `--group`"):
        Checkpoint.decode(text, window_ms=60_000)


def test_another_window_length_is_refused_naming_both() -> None:
    with pytest.raises(ConfigurationError, match=r"60000 ms and this processor has 30000 ms"):
        Checkpoint.decode(FULL.encode(), window_ms=30_000)
