import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from tests.support.samples import natural

from hydrophone.detectors.samples import SampleDetectors
from hydrophone.detectors.samples.gate import Gate, Mixture
from hydrophone.detectors.samples.rows import Rows

CPU = torch.device("cpu")


def test_the_likelihood_is_scikit_learns() -> None:
    values = natural(500, 1).layers["early"]
    mixture = Mixture.fit(torch.from_numpy(values), components=3)
    new = torch.from_numpy(natural(50, 2).layers["early"])
    scaled = mixture.scale(new).double().numpy() @ mixture.axes.double().numpy()
    oracle = GaussianMixture(3, covariance_type="full")
    oracle.weights_ = np.ones(3) / 3
    # Rebuilt from what was kept: constants hold weight and determinant.
    factors = mixture.whiten.double().numpy().reshape(8, 3, 8).transpose(1, 0, 2)
    means = [np.linalg.solve(f.T, o) for f, o in zip(factors, mixture.offsets.double().numpy(), strict=True)]
    logdets = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
    k = scaled.shape[1]
    oracle.weights_ = np.exp(mixture.constants.double().numpy() - logdets + k / 2 * np.log(2 * np.pi))
    oracle.means_, oracle.precisions_cholesky_ = np.stack(means), factors
    assert oracle.weights_.sum() == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(mixture(new).numpy(), oracle.score_samples(scaled), rtol=1e-3, atol=1e-2)


def test_what_the_axes_leave_out_counts() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(600, 4)) @ rng.normal(size=(4, 40)) + 0.05 * rng.normal(size=(600, 40))).astype("f4")
    mixture = Mixture.fit(torch.from_numpy(values), components=1, axes=4)
    away = np.linalg.svd(values, full_matrices=False)[2][-1]
    beyond = values[:1] + 3 * away * values.std()
    both = mixture(torch.from_numpy(np.vstack([values[:1], beyond]).astype("f4")))
    assert float(both[1]) < float(both[0]) - 50


def test_it_refuses_the_stated_share_of_clean_rows_and_nearly_all_strangers(plain: SampleDetectors) -> None:
    """300 calibration rows and 2,000 new ones: the share refused has a deviation of .0135 about .05."""
    answer = plain.gate(natural(2_000, 5))
    assert 0.05 - 4 * 0.0135 < 1 - answer.accepted.mean() < 0.05 + 4 * 0.0135
    assert (answer.p_value > 0).all()
    strangers = plain.gate(natural(200, 6, shift=4.0))
    assert strangers.accepted.mean() < 0.02
    assert strangers.log_likelihood.max() < np.median(answer.log_likelihood)


def test_what_cannot_be_judged_is_not_accepted_and_says_why(plain: SampleDetectors) -> None:
    layers = {"early": natural(3, 1).layers["early"].copy(), "late": natural(3, 1).layers["late"]}
    layers["early"][1, 0] = np.inf
    frame = natural(3, 1)
    bad = type(frame)(frame.model, layers, event_time_ms=frame.event_time_ms)
    answer = plain.gate(bad)
    assert answer.reasons == [(), ("not_finite:layer.early",), ()]
    assert not np.isnan(answer.p_value).any(), "the other layer still ranks the row"
    other = plain.gate(natural(2, 1, model="another"))
    assert not other.accepted.any()
    assert other.reasons[0] == ("wrong_model:another",)


def test_layers_are_judged_apart() -> None:
    rows = Rows(natural(300, 1), CPU)
    gate = Gate.fit(rows, ["late", "early"], components=3)
    assert gate.measures() == ("gate.log_likelihood.late", "gate.log_likelihood.early")
    assert np.isnan(gate.score(Rows(natural(4, 2).only(["early"]), CPU))["gate.log_likelihood.late"]).all()
