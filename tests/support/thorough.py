"""What is too long for every run: asked for with `HYDROPHONE_THOROUGH=1`, which `make faults` sets."""

import os
from typing import Final

import pytest

__all__ = ["THOROUGH", "only_when_thorough"]

THOROUGH: Final = os.environ.get("HYDROPHONE_THOROUGH") == "1"

only_when_thorough: Final = pytest.mark.skipif(not THOROUGH, reason="takes minutes: `make faults` runs it")
