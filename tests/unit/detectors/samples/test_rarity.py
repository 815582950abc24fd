import numpy as np

from hydrophone.detectors.samples.rarity import Rarity


def test_within_the_clean_values_it_is_the_share_as_large() -> None:
    values = np.arange(1.0, 1_000.0)[:, None]
    rarity = Rarity.fit(values)(np.array([[500.0], [950.0], [999.0], [-5.0]]))[:, 0]
    np.testing.assert_allclose(rarity, -np.log([501 / 1000, 51 / 1000, 2 / 1000, 1.0]), atol=0.02)


def test_beyond_them_it_goes_on_growing() -> None:
    values = np.random.default_rng(0).exponential(1.0, (5_000, 1))
    last = values.max()
    rarity = Rarity.fit(values)(np.array([[last], [last + 1], [last + 3], [1e9]]))[:, 0]
    assert (np.diff(rarity) > 0).all()
    # An exponential law of scale 1 adds 1 of rarity a unit.
    np.testing.assert_allclose(rarity[2] - rarity[1], 2.0, rtol=0.15)


def test_it_never_falls_as_values_grow_and_ties_get_the_same() -> None:
    values = np.round(np.random.default_rng(1).normal(size=(300, 1)), 1)
    fitted = Rarity.fit(values)
    grid = np.sort(np.r_[values[:, 0], np.linspace(-4, 6, 400)])[:, None]
    assert (np.diff(fitted(grid)[:, 0]) >= 0).all()
    constant = Rarity.fit(np.zeros((100, 1)))
    assert np.isfinite(constant(np.array([[0.0], [5.0]]))).all()


def test_missing_stays_missing() -> None:
    fitted = Rarity.fit(np.random.default_rng(2).normal(size=(100, 2)))
    found = fitted(np.array([[np.nan, 0.0]]))
    assert np.isnan(found[0, 0])
    assert not np.isnan(found[0, 1])
