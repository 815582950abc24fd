"""What a model id may look like. It is a Kafka key, a file name and a metric attribute at once."""

import re
from typing import Final

from hydrophone.schemas.errors import FrameInvalid

__all__ = ["check_model"]

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
