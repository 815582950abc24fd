"""Places where a test can make a processor die, freeze or dawdle. Off, and a look into an empty dict, unless armed.

    HYDROPHONE_FAILPOINT='after-produce:3=kill, in-test=sleep 0.5'

kills the process the third time it reaches `after-produce`, and sleeps half a second in every test. Where the places
are is the business of who calls `reach`; nothing here knows Kafka or windows.
"""

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from hydrophone.schemas.errors import SettingsError

__all__ = ["PLACES", "VARIABLE", "arm", "arm_from_environment", "reach"]

VARIABLE: Final = "HYDROPHONE_FAILPOINT"

PLACES: Final = {
    "in-test": "a window has closed and is about to be tested",
    "before-commit": "a batch's outputs are made and none is sent",
    "after-produce": "outputs and offsets are sent, and the commit is not asked for",
    "after-commit": "the broker has committed, and nobody here has heeded it",
}

ENTRY: Final = re.compile(r"\s*([a-z-]+)(?::([1-9][0-9]*))?\s*=\s*(kill|stop|sleep\s+([0-9]*\.?[0-9]+))\s*")


@dataclass(slots=True)
class _Failpoint:
    """What happens at the `nth` time it is reached, or at every time where that is None."""

    nth: int | None
    action: Callable[[], None]
    reached: int = 0

    def reach(self) -> None:
        self.reached += 1
        if self.nth in (None, self.reached):
            self.action()


_armed: dict[str, list[_Failpoint]] = {}


def reach(place: str) -> None:
    """The work has come to this place."""
    for failpoint in _armed.get(place, ()):
        failpoint.reach()


def arm_from_environment() -> None:
    arm(os.environ.get(VARIABLE, ""))


def arm(text: str) -> None:
    """Replace what was armed. Raises `SettingsError` and changes nothing when the text cannot be read."""
    found: dict[str, list[_Failpoint]] = {}
    for entry in filter(str.strip, text.split(",")):
        place, failpoint = _parsed(entry)
        found.setdefault(place, []).append(failpoint)
    _armed.clear()
    _armed.update(found)


def _parsed(entry: str) -> tuple[str, _Failpoint]:
    match = ENTRY.fullmatch(entry)
    if match is None or match[1] not in PLACES:
        raise SettingsError(
            f"`{VARIABLE}` must be `place[:n]=kill|stop|sleep SECONDS` with a place of {', '.join(PLACES)}; "
            f"got {entry.strip()!r}"
        )
    place, nth, action, seconds = match.groups()
    return place, _Failpoint(int(nth) if nth else None, _action(action, seconds))


def _action(name: str, seconds: str | None) -> Callable[[], None]:
    if seconds is not None:
        return partial(time.sleep, float(seconds))
    return partial(_signal_self, signal.SIGKILL if name == "kill" else signal.SIGSTOP)


def _signal_self(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
