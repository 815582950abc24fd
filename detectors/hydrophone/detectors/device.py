"""Where the arithmetic runs. Nothing else decides on a device."""

from typing import Final

import torch

from hydrophone.schemas.errors import ConfigurationError

__all__ = ["device_name", "resolve_device"]

AUTO: Final = "auto"


def resolve_device(device: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if device == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(f"`device` must be auto, cpu or cuda[:i]; got {device!r} ({error})") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"`device` is {device!r} and torch sees no CUDA device; use auto or cpu")
    return chosen


def device_name(device: torch.device) -> str:
    """For people and events: the accelerator's own name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
