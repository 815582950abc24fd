"""Distances to a class's cloud: against the textbook, and far rows are far."""

import numpy as np
import torch

from hydrophone.detectors.closeness import KEPT_AXES, Closeness
from hydrophone.detectors.outputs import output_scores


def cloud(rows: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    strata = rng.integers(0, 3, rows)
    mixing = rng.standard_normal((d, d)) / np.sqrt(d)
    return (rng.standard_normal((rows, d)) @ mixing + 3 * strata[:, None]).astype(np.float32), strata


def test_with_many_rows_it_is_the_textbooks_mahalanobis_distance() -> None:
    rows, strata = cloud(20_000, 6, seed=1)
    fitted = Closeness.fit(rows, strata, 3)
    means = np.stack([rows[strata == s].mean(0) for s in range(3)])
    offset = (rows - means[strata]).astype(np.float64)
    expected = np.einsum("ij,jk,ik->i", offset, np.linalg.inv(np.cov(offset.T, bias=True)), offset)
    found = fitted(torch.from_numpy(rows), torch.from_numpy(strata))[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)


def test_more_features_than_rows_or_kept_axes_still_measure() -> None:
    rows, strata = cloud(80, KEPT_AXES + 44, seed=2)
    found = Closeness.fit(rows, strata, 3)(torch.from_numpy(rows), torch.from_numpy(strata))
    assert torch.isfinite(found).all()
    assert (found >= 0).all()


def test_a_layer_that_never_varies_is_everywhere_close() -> None:
    rows, strata = np.ones((50, 4), np.float32), np.zeros(50, np.int64)
    found = Closeness.fit(rows, strata, 1)(torch.from_numpy(rows), torch.from_numpy(strata))
    assert (found == 0).all()


def test_a_row_among_another_class_is_far() -> None:
    rows, strata = cloud(3_000, 8, seed=3)
    fitted = Closeness.fit(rows, strata, 3)
    own = fitted(torch.from_numpy(rows), torch.from_numpy(strata))[0]
    other = fitted(torch.from_numpy(rows), torch.from_numpy((strata + 1) % 3))[0]
    assert (other > own).float().mean() > 0.99


def test_answers_so_sure_that_one_less_them_is_nothing_still_differ() -> None:
    sure = np.array([[1.0, 1e-12, 0.0], [1.0, 1e-20, 0.0]], np.float32)
    entropy, certainty, doubt, confidence = output_scores(sure, torch.device("cpu"))
    assert entropy[0] > entropy[1]
    assert confidence[1] > confidence[0]
    assert torch.equal(certainty, -entropy)
    assert torch.equal(doubt, -confidence)
