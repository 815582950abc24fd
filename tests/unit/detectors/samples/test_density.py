import numpy as np
import torch
from scipy.special import log_softmax, logsumexp, softmax
from tests.support.samples import natural

from hydrophone.detectors.samples.density import ClassDensity
from hydrophone.detectors.samples.layers import LayerCloseness
from hydrophone.detectors.samples.rows import Rows

CPU = torch.device("cpu")
CLASSES = np.arange(3)


def test_density_and_divergence_are_those_of_the_paper() -> None:
    fit, new = natural(300, 1), natural(20, 2)
    found = ClassDensity.fit(Rows(fit, CPU), "late", CLASSES, bandwidth=1.0).score(Rows(new, CPU))
    X, Y = fit.layers["late"].astype(float), new.layers["late"].astype(float)
    mean, scale = X.mean(0), X.std(0)
    own, theirs = fit.classes(), new.classes()
    assert own is not None
    assert theirs is not None
    for row in range(len(Y)):
        members = X[own == theirs[row]]
        squares = (((Y[row] - members) / scale) ** 2).sum(1)
        density = logsumexp(-squares / 2) - np.log(len(members))
        np.testing.assert_allclose(found["closeness.kde"][row], density, rtol=1e-3)
        usual = np.log(softmax(members, axis=1).mean(0))
        divergence = (softmax(Y[row]) * (log_softmax(Y[row]) - usual)).sum()
        np.testing.assert_allclose(found["closeness.kl"][row], divergence, rtol=1e-3, atol=1e-4)
    assert mean.shape == (20,)


def test_a_class_never_seen_has_no_density() -> None:
    fitted = ClassDensity.fit(Rows(natural(300, 1), CPU), "late", CLASSES)
    closeness = LayerCloseness.fit(Rows(natural(300, 1), CPU), ["early", "late"], CLASSES)
    rows = Rows(natural(3, 2, predicted=np.array([0, 7, 2])), CPU)
    for scores in (fitted.score(rows), closeness.score(rows)):
        for values in scores.values():
            assert np.isnan(values).tolist() == [False, True, False]


def test_rows_off_their_class_lie_farther() -> None:
    fit = Rows(natural(600, 1), CPU)
    near, far = (Rows(natural(200, 2, shift=shift), CPU) for shift in (0.0, 1.5))
    density = ClassDensity.fit(fit, "late", CLASSES)
    closeness = LayerCloseness.fit(fit, ["early", "late"], CLASSES)
    assert np.median(density.score(far)["closeness.kde"]) < np.median(density.score(near)["closeness.kde"])
    for name in closeness.measures():
        assert np.median(closeness.score(far)[name]) > np.median(closeness.score(near)[name])


def test_a_layer_that_never_varies_can_be_fitted() -> None:
    frame = natural(300, 1)
    flat = {**frame.layers, "late": np.zeros((300, 20), np.float32)}
    rows = Rows(natural(300, 1).only(["early"]), CPU)
    del rows
    constant = Rows(type(frame)(frame.model, flat, event_time_ms=frame.event_time_ms, output=frame.output), CPU)
    scores = ClassDensity.fit(constant, "late", CLASSES).score(constant)
    assert all(np.isfinite(values).all() for values in scores.values())
