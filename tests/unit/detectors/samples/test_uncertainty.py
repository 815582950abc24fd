import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.samples import natural

from hydrophone.detectors.samples import mc_measures
from hydrophone.detectors.samples.rows import Rows
from hydrophone.detectors.samples.uncertainty import Uncertainty

CPU = torch.device("cpu")


def passes(T: int, m: int, C: int, seed: int, sharpness: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(T, m, C, generator=generator) * sharpness).softmax(2)


@settings(deadline=None, max_examples=60)
@given(
    T=st.integers(1, 20),
    C=st.integers(2, 30),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.0, 1e-6, 0.1, 1.0, 10.0, 200.0]),
)
def test_mutual_information_lies_between_zero_and_the_entropy_and_that_below_ln_c(
    T: int, C: int, seed: int, sharpness: float
) -> None:
    found = mc_measures(passes(T, 5, C, seed, sharpness))
    entropy, mutual = found["entropy"], found["mutual_information"]
    assert bool((mutual >= 0).all())
    assert bool((mutual <= entropy).all())
    assert bool((entropy <= math.log(C)).all())
    assert bool((found["variance"] >= 0).all())
    assert bool((found["confidence"] >= 1 / C - 1e-6).all())
    assert bool((found["confidence"] <= 1 + 1e-6).all())


def test_measures_are_those_of_the_paper() -> None:
    P = passes(50, 4, 3, 0, 2.0).double().numpy()
    mean = P.mean(0)
    entropy = [-sum(p * math.log(p) for p in row) for row in mean]
    expected = [np.mean([-sum(p * math.log(p) for p in P[t, i]) for t in range(50)]) for i in range(4)]
    found = mc_measures(torch.from_numpy(P))
    np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-12)
    np.testing.assert_allclose(found["mutual_information"], np.subtract(entropy, expected), rtol=1e-9)
    np.testing.assert_allclose(found["variance"], P.var(0).mean(1), rtol=1e-9)
    np.testing.assert_allclose(found["confidence"], mean.max(1), rtol=1e-12)


def test_passes_that_agree_hold_no_mutual_information() -> None:
    one = passes(1, 6, 10, 3, 1.0)
    found = mc_measures(one.expand(50, 6, 10))
    assert float(found["mutual_information"].max()) < 1e-9
    assert float(found["variance"].max()) < 1e-12


def test_what_a_frame_lacks_is_missing_and_named() -> None:
    fitted = Uncertainty.fit(Rows(natural(5, 1), CPU))
    rows = Rows(natural(5, 2, uncertainty={"entropy": np.array([0.1, 0.2, np.nan, 0.4, 0.5])}), CPU)
    found = fitted.score(rows)
    assert np.isnan(found["uncertainty.variance"]).all()
    assert np.isnan(found["uncertainty.entropy"]).tolist() == [False, False, True, False, False]
    assert not np.isnan(found["output.entropy"]).any()
    assert "missing_tensor:uncertainty.variance" in rows.reasons()[0]
    assert "not_finite:uncertainty.entropy" in rows.reasons()[2]
    assert "not_finite:uncertainty.entropy" not in rows.reasons()[0]


def test_plain_doubt_resolves_what_rounding_of_the_largest_would_not() -> None:
    output = np.array([[1 - 1e-7, 1e-7, 0], [1.0, 1e-12, 0]], np.float32)
    rows = Rows(natural(2, 1, output=output, predicted=np.array([0, 0])), CPU)
    doubt = Uncertainty.fit(rows).score(rows)["output.doubt"]
    assert doubt[0] == pytest.approx(math.log(1e-7), abs=1e-3)
    assert doubt[1] < doubt[0]
