"""`failpoints` does nothing unless armed, and then exactly what was asked for at the time asked for."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from hydrophone.schemas.errors import SettingsError
from hydrophone.streams import failpoints


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_nothing_happens_unless_armed() -> None:
    failpoints.arm("")

    assert _seconds("in-test") < 0.05


def test_the_nth_time_counts_or_every_time() -> None:
    failpoints.arm("in-test:2=sleep 0.1, before-commit=sleep .1")

    assert [_seconds("in-test") >= 0.1 for _ in range(3)] == [False, True, False]
    assert [_seconds("before-commit") >= 0.1 for _ in range(2)] == [True, True]


@pytest.mark.parametrize("text", ["nowhere=kill", "in-test", "in-test:0=kill", "in-test=sleep", "in-test=explode"])
def test_what_cannot_be_read_is_refused_and_named(text: str) -> None:
    with pytest.raises(SettingsError, match="HYDROPHONE_FAILPOINT.*got '" + text):
        failpoints.arm(f"after-commit=sleep 0, {text}")

    assert _seconds("after-commit") < 0.05


def test_kill_is_sigkill() -> None:
    program = "from hydrophone.streams import failpoints as f; f.arm_from_environment(); f.reach('after-commit')"

    done = subprocess.run(
        [sys.executable, "-c", program], env={"HYDROPHONE_FAILPOINT": "after-commit=kill", **_path()}, check=False
    )

    assert done.returncode == -9


def _seconds(place: str) -> float:
    began = time.monotonic()
    failpoints.reach(place)
    return time.monotonic() - began


def _path() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}
