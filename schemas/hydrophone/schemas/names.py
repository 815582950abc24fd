"""What ids may look like. A model's is a Kafka key, a file name and a metric attribute at once."""

import re
from typing import Final

from hydrophone.schemas.errors import FrameInvalid

__all__ = ["check_frame_id", "check_model"]

FRAME_ID_PATTERN: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
MODEL_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/-]{0,199}")


def check_model(model: object) -> str:
    """Give back `model`, or raise `FrameInvalid` (`bad_model`).

    `#` is excluded because a key `model#shard` names a shard of a model; white space because keys are typed by people.
    """
    if isinstance(model, str) and MODEL_PATTERN.fullmatch(model):
        return model
    raise FrameInvalid(
        "bad_model",
        "`model` must be 1 to 200 letters, digits or any of . _ @ : / - and begin with a letter or digit; "
        f"got {model!r:.80}",
    )


def check_frame_id(text: str) -> str:
    """The id in its canonical spelling, so that two spellings cannot pass for two frames. Raises `FrameInvalid`."""
    if FRAME_ID_PATTERN.fullmatch(text):
        return text.lower()
    raise FrameInvalid(
        "bad_frame_id", f"`frame_id` must be a UUID like 123e4567-e89b-12d3-a456-426614174000; got {text!r:.80}"
    )
