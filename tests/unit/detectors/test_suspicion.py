"""Single rows: p-values that are uniform on clean rows, naming that keeps its rate, a share that holds the truth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.support.frames import class_frame, gaussian_frame

from hydrophone.detectors import fit_reference
from hydrophone.detectors.suspicion import contaminated_share, named_rows, row_p_values

N, M = 400, 100


def drawn(rng: np.random.Generator, hostile: int = 0, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three scores of N reference rows and M window rows in three strata, one of them rare; hostile rows come last."""
    strata = torch.from_numpy(rng.choice(3, N + M, p=[0.6, 0.37, 0.03]))
    scores = torch.from_numpy(rng.standard_normal((3, N + M))) + strata  # classes differ, and that is no news
    scores[0, N + M - hostile :] += shift
    return scores, strata


def test_a_p_value_counts_reference_rows_at_least_as_rare() -> None:
    """One score, one stratum: the rank among the reference rows, the row itself counted."""
    scores = torch.tensor([[*range(40), 39.5, -1.0, 20.0]], dtype=torch.float64)
    found = row_p_values(scores, torch.zeros(43, dtype=torch.int64), 40, torch.ones(1))
    assert found.tolist() == pytest.approx([1 / 41, 1.0, 21 / 41], abs=1 / 41)


def test_p_values_of_clean_rows_are_uniform() -> None:
    found = [row_p_values(*drawn(np.random.default_rng([1, i])), N, torch.ones(3)).numpy() for i in range(200)]
    firsts = np.array([p[0] for p in found]) - np.random.default_rng(0).random(200) / (N + 1)
    assert stats.kstest(firsts, "uniform").pvalue > 0.001
    assert np.mean(np.concatenate(found) <= 0.05) == pytest.approx(0.05, abs=0.01)


def test_the_order_of_rows_does_not_matter() -> None:
    scores, strata = drawn(np.random.default_rng(2), hostile=10, shift=5.0)
    order = torch.cat([torch.randperm(N), N + torch.randperm(M)])
    mixed = row_p_values(scores[:, order], strata[order], N, torch.ones(3))
    assert torch.equal(mixed, row_p_values(scores, strata, N, torch.ones(3))[order[N:] - N])


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=60), st.floats(0.01, 0.5))
def test_naming_is_benjamini_hochberg(p_values: list[float], rate: float) -> None:
    p = np.array(p_values)
    adjusted = stats.false_discovery_control(p)
    clear = np.abs(adjusted - rate) > 1e-9
    assert np.array_equal(named_rows(p, rate)[clear], (adjusted <= rate)[clear])


def test_of_the_rows_named_few_are_clean() -> None:
    """Ten of a hundred rows far out: at most 10 % false among those named, on average over 200 windows (+ 3 points)."""
    shares, hits = [], []
    for i in range(200):
        scores, strata = drawn(np.random.default_rng([3, i]), hostile=10, shift=6.0)
        named = named_rows(row_p_values(scores, strata, N, torch.tensor([1.0, 0.05, 0.05])).numpy())
        shares.append(named[:-10].sum() / max(named.sum(), 1))
        hits.append(named[-10:].mean())
    assert np.mean(shares) <= 0.13
    assert np.mean(hits) >= 0.5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_the_interval_of_the_contaminated_share_holds_it(share: float) -> None:
    """At least 90 % of 200 windows, less what chance allows (99 %)."""
    held = []
    for i in range(200):
        rng = np.random.default_rng([4, i])
        hostile = round(share * M)
        p = np.r_[rng.random(M - hostile), rng.beta(0.2, 8.0, hostile)]
        found = contaminated_share(p, N)
        assert 0 <= found.low <= found.fraction <= found.high <= 1
        held.append(found.low <= share <= found.high)
    assert np.mean(held) >= 0.9 - 2.6 * np.sqrt(0.09 / 200)


def test_a_rejecting_window_names_its_hostile_rows_and_a_clean_one_names_none() -> None:
    fitted = fit_reference([class_frame(900, 1, shares=(0.6, 0.4))], permutations=199, device="cpu")
    attacked = gaussian_frame(100, 3, dimensions={"fc": 8}, shift=9.0, shifted=12, predicted=np.zeros(100, np.int64))
    hostile = fitted.test(attacked)
    assert hostile.rejected
    named = [suspect for suspect in hostile.suspects if suspect.is_named]
    assert {suspect.row for suspect in named} >= set(range(12))
    assert hostile.contamination is not None
    clean = fitted.test(class_frame(100, 5, shares=(0.6, 0.4)))
    assert not clean.rejected
    assert not any(suspect.is_named for suspect in clean.suspects)
    assert clean.contamination is not None
    assert clean.contamination.low <= 0.05
