"""A device without memory: smaller parts first, then the CPU, the same answer, and the result says what was done.

The device's refusal is torch's own error, raised where the work is done; a CUDA device that is really full is the
business of the tests marked `gpu`.
"""

from typing import Any

import pytest
import torch
from tests.support.frames import gaussian_frame

from hydrophone.detectors import fallback, fit_reference
from hydrophone.detectors.assessment import Assessor
from hydrophone.detectors.fallback import LEAST_MEMORY_BYTES, SHRINK, Fallback


class FullDevice:
    """Refuses work that would use more than `room` bytes on it; the CPU never refuses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.asked: list[int] = []
        plainly = Assessor.assess

        def assess(assessor: Assessor, *arguments: Any, **options: Any) -> Any:
            if assessor._device.type == "meta":
                self.asked.append(assessor._memory_bytes)
                if assessor._memory_bytes > room:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                assessor._device = torch.device("cpu")  # the arithmetic of a device that has room
            return plainly(assessor, *arguments, **options)

        monkeypatch.setattr(Assessor, "assess", assess)


def fixed(room: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Fallback, FullDevice, Any, Any]:
    reference = fit_reference([gaussian_frame(300, seed=1)], permutations=99, device="cpu")
    full = FullDevice(monkeypatch, room)
    monkeypatch.setattr(fallback, "device_name", lambda _: "NVIDIA H100")
    tested = Fallback(reference._artefact, torch.device("meta"), 512 << 20)
    rows, left_out = reference._usable([gaussian_frame(60, seed=2)])
    return tested, full, reference, lambda on: on.assess(rows, left_out, None)


def test_smaller_parts_give_the_same_answer_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    tested, full, reference, work = fixed(64 << 20, monkeypatch)

    first, second = tested.test(work), tested.test(work)

    assert full.asked == [512 << 20, 128 << 20, 32 << 20]
    expected = reference.test(gaussian_frame(60, seed=2))
    assert first.p_value == second.p_value == expected.p_value
    assert first.device.endswith("in parts of 32 MiB, out of memory")


def test_a_full_device_hands_the_window_to_the_cpu_and_is_asked_again_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tested, full, reference, work = fixed(0, monkeypatch)

    results = [tested.test(work) for _ in range(2)]

    assert full.asked[-1] == full.asked[-2]
    assert LEAST_MEMORY_BYTES <= full.asked[-1] < LEAST_MEMORY_BYTES * SHRINK
    assert {result.device for result in results} == {"cpu: NVIDIA H100 was out of memory"}
    assert results[0].p_value == reference.test(gaussian_frame(60, seed=2)).p_value


def test_the_cpu_has_nothing_to_fall_back_to() -> None:
    reference = fit_reference([gaussian_frame(300, seed=1)], permutations=99, device="cpu")
    tested = Fallback(reference._artefact, torch.device("cpu"), 512 << 20)

    def refuse(_: Assessor) -> Any:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        tested.test(refuse)
