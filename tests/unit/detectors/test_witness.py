"""The witness is that of the definition, and the scores weigh it by what each branch found."""

import numpy as np
import pytest
import torch
from tests.support.frames import gaussian_frame
from tests.support.oracle import gaussian_kernel, unbiased_mmd2, witness

from hydrophone.detectors import fit_reference
from hydrophone.detectors.permutation import JointNull
from hydrophone.detectors.window_test import BranchName, WindowRows, WindowStatistics, window_statistics
from hydrophone.detectors.witness import row_scores


def test_the_witness_of_a_row_is_its_share_of_the_statistic() -> None:
    reference = fit_reference([gaussian_frame(150, 1)], permutations=99, device="cpu")
    prepared = reference.prepared
    values = gaussian_frame(30, 2, shift=0.5).layers["fc"]
    found = window_statistics(prepared, WindowRows({"fc": values}, np.zeros(30, np.int64), is_stratified=False))
    layer = prepared.layers[0]
    pooled = torch.cat([layer.rows, layer.scaled(values)]).double().numpy()
    split = prepared.stratum(None, 30)
    Z = torch.cat([split.Zx, split.Zy]).numpy() > 0.5
    for branch, bandwidth in enumerate(layer.bandwidths):
        kernel = gaussian_kernel(pooled, bandwidth)
        deviation = np.std([unbiased_mmd2(kernel, column) for column in Z.T])
        expected = witness(kernel, Z[:, 0]) * (2 / 30) / deviation
        np.testing.assert_allclose(found.witness[branch].numpy(), expected, atol=1e-3)


def test_the_branch_that_found_most_weighs_most() -> None:
    statistics = torch.tensor([[10.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    branches = (BranchName("a", "mmd_global", 1.0), BranchName("b", "mmd_global", 1.0))
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    scores = row_scores(WindowStatistics(branches, JointNull(statistics), {}, shares, torch.ones(2)))
    assert float(scores.sum()) == pytest.approx(1.0)
    assert float(scores[0]) > 0.99


def test_equal_statistics_weigh_alike() -> None:
    branches = (BranchName("a", "mmd_global", 1.0), BranchName("b", "mmd_global", 1.0))
    shares = torch.tensor([[1.0, 3.0], [3.0, 1.0]], dtype=torch.float64)
    null = JointNull(torch.zeros(2, 4, dtype=torch.float64))
    scores = row_scores(WindowStatistics(branches, null, {}, shares, torch.ones(2)))
    assert scores.tolist() == [2.0, 2.0]
