"""What is kept for the next window: bounded, and equal to what would be computed anew."""

import numpy as np
import torch
from tests.support.frames import class_frame, gaussian_frame

from hydrophone.detectors import fit_reference
from hydrophone.detectors.prepared import FARTHEST, _BoundedCache


def test_a_cache_forgets_what_was_used_longest_ago() -> None:
    made: list[int] = []
    cache: _BoundedCache[torch.Tensor] = _BoundedCache(3 * 4, lambda tensor: tensor.nbytes)

    def get(key: int) -> float:
        def make() -> torch.Tensor:
            made.append(key)
            return torch.full((1,), float(key))

        return float(cache.get((key,), make))

    assert [get(key) for key in (1, 2, 3, 1, 4, 1, 2)] == [1, 2, 3, 1, 4, 1, 2]
    assert made == [1, 2, 3, 4, 2]


def test_one_entry_larger_than_the_bound_is_still_kept() -> None:
    cache: _BoundedCache[torch.Tensor] = _BoundedCache(1, lambda tensor: tensor.nbytes)
    entry = cache.get((0,), lambda: torch.zeros(100))
    assert cache.get((0,), lambda: torch.ones(100)) is entry


def test_splits_of_a_window_size_are_drawn_once_and_differ_between_strata() -> None:
    prepared = fit_reference([class_frame(300, 1, shares=(0.5, 0.5))], permutations=99, device="cpu").prepared
    assert prepared.stratum(0, 7) is prepared.stratum(0, 7)
    assert prepared.stratum(0, 7).Zy.sum(0).tolist() != prepared.stratum(1, 7).Zy.sum(0).tolist()
    assert prepared.stratum(None, 7).Zx.shape == (200, 100)


def test_rows_stand_in_the_order_of_their_strata() -> None:
    prepared = fit_reference([class_frame(300, 1, shares=(0.3, 0.7))], permutations=99, device="cpu").prepared
    assert sum(prepared.counts) == prepared.n == 200
    assert prepared.starts == (0, *np.cumsum(prepared.counts))
    first = prepared.layers[0].rows[: prepared.counts[0]]
    assert bool((first[:, 0] > first[:, 1]).float().mean() > 0.9)


def test_values_beyond_every_kernel_are_cut() -> None:
    layer = fit_reference([gaussian_frame(90, 1)], permutations=99, device="cpu").prepared.layers[0]
    found = layer.scaled(np.array([[3e38, -3e38, 0, 0, 0, 0, 0, 0]], np.float32))
    assert found[0, :2].tolist() == [FARTHEST, -FARTHEST]
    assert bool(torch.isfinite(layer.kernels(found, found)).all())
