import numpy as np
from scipy import stats

from hydrophone.detectors.samples.suspicion import MOST_PATTERNS, Suspicion, group_weights, regression_weights

MEASURES = ("uncertainty.entropy", "uncertainty.confidence", "closeness.kde", "gate.log_likelihood.late")
WEIGHTS = np.stack(list(group_weights(MEASURES).values()))


def clean(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    common = rng.standard_t(3, (rows, 1))
    return common + rng.standard_t(3, (rows, len(MEASURES)))


def test_p_values_of_clean_rows_are_exact_whichever_measures_are_missing() -> None:
    """One row a fit, so that draws are independent; P(p <= k / (n + 1)) = k / (n + 1) but for ties. Nine binomial
    tests, each at 1e-3: under the null one run in 110 would fail, were the seeds not fixed."""
    n, trials = 39, 200
    levels = np.array([1, 4, 20]) / (n + 1)
    missing = {"none": (), "entropy": (0,), "two": (1, 3)}
    below = {name: np.zeros(3, int) for name in missing}
    for trial in range(trials):
        ranks, calibration, row = np.split(clean(60 + n + 1, trial), [60, 60 + n])
        fitted = Suspicion.fit(ranks, WEIGHTS, calibration)
        for name, places in missing.items():
            seen = row.copy()
            seen[:, places] = np.nan
            below[name] += fitted.p_values(seen, fitted(seen))[0] <= levels + 1e-9
    for counts in below.values():
        for count, level in zip(counts, levels, strict=True):
            assert stats.binomtest(int(count), trials, level).pvalue > 1e-3


def test_a_p_value_is_never_zero_and_falls_as_suspicion_grows() -> None:
    fitted = Suspicion.fit(clean(200, 0), WEIGHTS, clean(99, 1))
    rows = np.array([[0.0, 0, 0, 0], [50, -50, -50, -50], [1e12, -1e12, -1e12, -1e12]])
    suspicion = fitted(rows)
    p_values = fitted.p_values(rows, suspicion)
    assert (np.diff(suspicion) > 0).all()
    assert p_values[0] > 0.05
    np.testing.assert_allclose(p_values[1:], 0.01)


def test_a_row_without_any_measure_is_not_judged() -> None:
    fitted = Suspicion.fit(clean(200, 0), WEIGHTS, clean(99, 1))
    rows = np.full((2, len(MEASURES)), np.nan)
    rows[1, 0] = 0.0
    suspicion = fitted(rows)
    assert np.isnan(suspicion).tolist() == [True, False]
    assert np.isnan(fitted.p_values(rows, suspicion)).tolist() == [True, False]


def test_strangers_cannot_make_it_remember_without_bound() -> None:
    many = tuple(f"gate.log_likelihood.{k}" for k in range(8))
    rng = np.random.default_rng(0)
    weights = np.stack(list(group_weights(many).values()))
    fitted = Suspicion.fit(rng.normal(size=(50, 8)), weights, rng.normal(size=(50, 8)))
    for pattern in range(1, 255):
        row = np.where([(pattern >> k) & 1 for k in range(8)], np.nan, 0.0)[None]
        fitted.p_values(row, fitted(row))
    assert len(fitted._ranked) <= MOST_PATTERNS


def test_the_regression_counts_both_sides_alike_and_survives_a_constant() -> None:
    rng = np.random.default_rng(0)
    features = np.c_[rng.normal(size=1_000), np.ones(1_000)]
    hostile = np.arange(1_000) < 50
    features[hostile, 0] += 3
    weights = regression_weights(features, hostile)
    assert weights[0] > 0
    assert np.isfinite(weights).all()
