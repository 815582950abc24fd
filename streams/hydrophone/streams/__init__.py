"""Everything with an effect: tap, publisher, windows, processor, incidents.

An inference service imports this package, so nothing is loaded before it is asked for: the tap needs torch, the
publisher a Kafka client, and neither should cost anything to a service that uses the other alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydrophone.streams.frame_writer import FrameWriter
    from hydrophone.streams.gating import gate
    from hydrophone.streams.publisher import Publisher
    from hydrophone.streams.tap import ActivationTap

__all__ = ["ActivationTap", "FrameWriter", "Publisher", "gate"]

_HOME = {"ActivationTap": "tap", "FrameWriter": "frame_writer", "Publisher": "publisher", "gate": "gating"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
