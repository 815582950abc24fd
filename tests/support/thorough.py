"""What is too long for every run: asked for with `HYDROPHONE_THOROUGH=1`, which `make faults` sets."""

import os
from typing import Final

import pytest

__all__ = ["THOROUGH", "only_when_thorough", "skip_the_long"]

THOROUGH: Final = os.environ.get("HYDROPHONE_THOROUGH") == "1"

only_when_thorough: Final = pytest.mark.thorough


def skip_the_long(items: list[pytest.Item]) -> None:
    """Those marked `thorough`, unless they were asked for; `-m thorough` then runs them alone."""
    if THOROUGH:
        return
    skip = pytest.mark.skip(reason="long: `make faults` runs it")
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(skip)
