"""What a test does when the device has no memory left: smaller parts, then the CPU, and the result says so.

Parts bound memory and not the answer: the same rows give the same p-value within 2 / (B + 1).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Final

import torch

from hydrophone.detectors.artefact import ReferenceArtefact
from hydrophone.detectors.assessment import Assessor
from hydrophone.detectors.device import device_name
from hydrophone.detectors.result import WindowResult

__all__ = ["Fallback"]

SHRINK: Final = 4
LEAST_MEMORY_BYTES: Final = 8 * 1024 * 1024


class Fallback:
    """One reference on its device, with less memory from the first refusal on; on the CPU for one window at a time,
    because a device that is full now may not be full for the next."""

    def __init__(self, artefact: ReferenceArtefact, device: torch.device, memory_bytes: int) -> None:
        self._artefact, self._device, self._asked, self._memory = artefact, device, memory_bytes, memory_bytes
        self.assessor = Assessor(artefact, device, memory_bytes)

    def test(self, work: Callable[[Assessor], WindowResult]) -> WindowResult:
        """Raises `torch.OutOfMemoryError` where there is nothing left to fall back to."""
        while True:
            try:
                return self._noted(work(self.assessor))
            except torch.OutOfMemoryError:
                if self._device.type == "cpu":
                    raise
                if self._memory // SHRINK < LEAST_MEMORY_BYTES:
                    break
            self._shrink()
        result = work(self._on_cpu)
        return replace(result, device=f"cpu: {device_name(self._device)} was out of memory")

    @cached_property
    def _on_cpu(self) -> Assessor:
        return Assessor(self._artefact, torch.device("cpu"), self._asked)

    def _shrink(self) -> None:
        self._memory //= SHRINK
        self.assessor = Assessor(self._artefact, self._device, self._memory)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # what the former one held is free only now

    def _noted(self, result: WindowResult) -> WindowResult:
        if self._memory == self._asked:
            return result
        return replace(result, device=f"{result.device}: in parts of {self._memory >> 20} MiB, out of memory")
