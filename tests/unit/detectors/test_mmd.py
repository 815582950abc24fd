"""The affine form is the definition: equation 3 of Gretton et al. for every split."""

import numpy as np
import pytest
import torch
from tests.support.oracle import unbiased_mmd2

from hydrophone.detectors.mmd import MmdWeights, mmd2


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 5), (7, 3), (20, 10)])
def test_the_affine_form_is_the_unbiased_estimate(n: int, m: int) -> None:
    rng = np.random.default_rng([n, m])
    kernel = rng.random((n + m, n + m))
    kernel += kernel.T
    hollow = kernel - np.diag(np.diag(kernel))
    for _ in range(5):
        z = np.zeros(n + m)
        z[rng.choice(n + m, m, replace=False)] = 1
        q, c = torch.tensor(z @ hollow @ z), torch.tensor(z @ hollow.sum(1))
        found = mmd2(MmdWeights.of(n, m), q, c, hollow.sum())
        assert float(found) == pytest.approx(unbiased_mmd2(kernel, z > 0), abs=1e-12)


def test_a_constant_taken_off_every_kernel_value_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.random((9, 9))
    kernel += kernel.T
    z = np.arange(9) >= 5
    assert unbiased_mmd2(kernel - 0.5, z) == pytest.approx(unbiased_mmd2(kernel, z), abs=1e-12)


def test_without_the_total_every_column_is_short_by_the_same() -> None:
    q, c = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([4.0, 1.0, 3.0])
    weights = MmdWeights.of(5, 4)
    missing = mmd2(weights, q, c, 10.0) - mmd2(weights, q, c)
    assert torch.allclose(missing, missing[0].expand(3))
    assert missing.dtype == torch.float64
