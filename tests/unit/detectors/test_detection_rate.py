"""The detection rate against an oracle that enumerates what it should be; its level; what may not matter to it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.frames import class_frame, frame_id, gaussian_frame, plain_frame, split_frame
from tests.support.oracle import redraw_p_values
from tests.support.windows import mixed

from hydrophone.detectors import Reference, fit_reference
from hydrophone.detectors.artefact import Manifest
from hydrophone.detectors.detection_rate import REDRAW_ROWS, REDRAWS, SIGNS, RatePool, Redraws
from hydrophone.detectors.permutation import p_values
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Frame

ALPHA = 0.05
SHARES = (0.5, 0.3, 0.2)


def redraws(pools: dict[str, np.ndarray], strata: np.ndarray, *, memory_bytes: int = 1 << 30, seed: int = 3) -> Redraws:
    made = {name: RatePool(torch.from_numpy(rows), (1.0, 2.0, 4.0)) for name, rows in pools.items()}
    return Redraws(made, strata, alpha=ALPHA, seed=seed, memory_bytes=memory_bytes)


def rows(n: int, seed: int, shift: float = 0.0, width: int = 6) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, width)) + shift).astype(np.float32)


def strata(n: int, shares: tuple[float, ...] = SHARES) -> np.ndarray:
    return np.sort(np.random.default_rng(n).choice(len(shares), n, p=shares))


def fitted(*frames: Frame, **settings: int) -> Reference:
    return fit_reference(frames, permutations=199, device="cpu", **settings)


# Against the oracle --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "is_stratified"), [(150, True), (60, True), (150, False), (60, False)])
def test_rates_are_the_oracles(m: int, is_stratified: bool) -> None:
    pool_strata, window_strata = strata(300), np.random.default_rng(1).permutation(strata(m))
    pools = {"a": rows(300, 1), "b": rows(300, 2)}
    window = {"a": rows(m, 3, 0.2), "b": rows(m, 4, 0.25)}
    drawing = redraws(pools, pool_strata)
    tensors = {name: torch.from_numpy(values) for name, values in window.items()}
    rates = drawing.rates(tensors, window_strata, is_stratified=is_stratified)
    pairs = drawing._pairs(window_strata, is_stratified=is_stratified)
    assert rates is not None
    assert pairs is not None
    ours = np.broadcast_to(pairs.window.numpy(), pairs.reference.shape)
    theirs = pairs.reference.numpy()
    signs = drawing._signs.numpy()
    joint, layers = [], {"a": [], "b": []}
    for draw in range(12):
        both = {name: (pools[name][theirs[draw]], window[name][ours[draw]]) for name in pools}
        kept = None if pairs.is_paired is None else np.broadcast_to(pairs.is_paired.numpy(), theirs.shape)[draw] > 0
        p, own = redraw_p_values(both, signs, (1.0, 2.0, 4.0), kept)
        joint.append(p)
        for name, value in own.items():
            layers[name].append(value)
    null = {name: drawing._null(name, tensors[name], pairs)[:12] for name in pools}
    for name, values in layers.items():
        np.testing.assert_allclose(p_values(null[name], null[name][:, 0]).numpy(), values, atol=1.01 / (SIGNS + 1))
    together = torch.stack(list(null.values())).amax(0)
    np.testing.assert_allclose(p_values(together, together[:, 0]).numpy(), joint, atol=1.01 / (SIGNS + 1))
    assert rates.joint == pytest.approx(float((p_values(*whole(drawing, tensors, pairs)) <= ALPHA).double().mean()))


def whole(drawing: Redraws, window: dict[str, torch.Tensor], pairs: object) -> tuple[torch.Tensor, torch.Tensor]:
    null = torch.stack([drawing._null(name, window[name], pairs) for name in sorted(window)]).amax(0)  # type: ignore[arg-type]
    return null, null[:, 0]


@pytest.mark.parametrize("m", [30, 100, 101, 400])
def test_a_redraw_pairs_rows_of_one_class_and_none_twice(m: int) -> None:
    pool_strata, window_strata = np.repeat([0, 1, 2], [120, 79, 1]), np.random.default_rng(m).permutation(strata(m))
    pairs = redraws({"a": rows(200, 1)}, pool_strata)._pairs(window_strata, is_stratified=True)
    assert pairs is not None
    s = min(m, REDRAW_ROWS)
    assert pairs.reference.shape == (REDRAWS, s)
    ours, theirs = np.broadcast_to(pairs.window.numpy(), (REDRAWS, s)), pairs.reference.numpy()
    paired = np.broadcast_to(True if pairs.is_paired is None else pairs.is_paired.numpy() > 0, (REDRAWS, s))
    assert not paired.all(), "the third class has more window rows than reference rows"
    for mine, others, kept in zip(ours, theirs, paired, strict=True):
        assert len(set(mine.tolist())) == s
        assert len(set(others[kept].tolist())) == kept.sum()
        assert (window_strata[mine[kept]] == pool_strata[others[kept]]).all()


def test_rows_of_a_class_the_reference_lacks_are_not_drawn() -> None:
    window_strata = np.repeat([0, 3], [40, 60])
    pairs = redraws({"a": rows(200, 1)}, np.zeros(200, np.int64))._pairs(window_strata, is_stratified=True)
    assert pairs is not None
    assert set(pairs.window.flatten().tolist()) == set(range(40))
    assert redraws({"a": rows(200, 1)}, np.zeros(200, np.int64))._pairs(window_strata[30:], is_stratified=True) is None


# Level and power -----------------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.slow
@pytest.mark.parametrize("is_stratified", [True, False])
def test_clean_windows_have_a_rate_of_alpha(is_stratified: bool) -> None:
    """Each of 300 windows has a rate of its own reference whose mean is alpha exactly: p-values of B = 99 reach 5 %.
    The rate of a window varies by about .1 (its re-draws share rows), so three standard errors are .02."""
    found = []
    for index in range(300):
        some = mixed([0.5, 0.3, 0.2])(500, np.random.default_rng([1, index]), "x")
        values, classes = some.layers["fc"], some.predicted
        assert classes is not None
        order = np.argsort(classes[:300], kind="stable")
        drawing = redraws({"fc": values[:300][order]}, classes[:300][order], seed=index)
        window = {"fc": torch.from_numpy(values[300:])}
        rates = drawing.rates(window, classes[300:], is_stratified=is_stratified)
        assert rates is not None
        found.append(rates.joint)
    error = float(np.std(found) / np.sqrt(len(found)))
    assert error < 0.01
    assert abs(np.mean(found) - ALPHA) < 3 * error + 1e-9


def test_a_strong_shift_is_seen_by_nearly_every_redraw_and_by_its_layer_alone() -> None:
    train = gaussian_frame(900, 1, dimensions={"early": 8, "late": 8})
    window = gaussian_frame(300, 2, dimensions={"early": 8, "late": 8})
    window.layers["late"][:] += 1.0
    result = fitted(train).test(window, detection_rate=True)
    assert result.detection_rate is not None
    assert result.detection_rate > 0.95
    assert result.layers["late"].detection_rate > 0.95
    assert result.layers["early"].detection_rate < 0.5


def test_a_change_of_class_mix_is_no_difference_to_a_class_matched_reference() -> None:
    train, window = class_frame(900, 1, shares=(0.6, 0.4)), class_frame(150, 2, shares=(0.2, 0.8))
    matched = fitted(train).test(window, detection_rate=True)
    ignored = fitted(plain_frame(train.layers, 1)).test(plain_frame(window.layers, 2), detection_rate=True)
    assert matched.calibration == "stratified"
    assert matched.detection_rate is not None
    assert matched.detection_rate < 0.5
    assert ignored.detection_rate == 1.0


def test_layers_that_do_not_vary_detect_nothing() -> None:
    def frame(n: int, seed: int) -> Frame:
        return plain_frame({"dead": np.full((n, 7), 0.1, np.float32), "live": rows(n, seed)}, seed)

    result = fitted(frame(600, 1)).test(frame(150, 2), detection_rate=True)
    assert result.layers["dead"].detection_rate == 0.0


# What may not matter -------------------------------------------------------------------------------------------------


def test_neither_order_nor_packing_nor_memory_matters() -> None:
    reference = fitted(class_frame(900, 1, shares=SHARES))
    parts = split_frame(class_frame(180, 2, shares=SHARES), [40, 100], ids=[frame_id(i) for i in ("a", "b", "c")])
    first = reference.test(parts, detection_rate=True)
    assert first.detection_rate is not None
    for order in itertools.permutations(parts):
        assert reference.test(order, detection_rate=True) == first
    tight = Reference(reference._artefact, device="cpu", memory_bytes=10_000)
    assert tight.test(parts, detection_rate=True).detection_rate == first.detection_rate
    assert not tight._assessor._redraws._within
    again = Reference(reference._artefact, device="cpu").test(parts, detection_rate=True)
    assert again == first


def test_asking_for_the_rate_changes_nothing_else() -> None:
    reference, window = fitted(gaussian_frame(900, 1)), gaussian_frame(150, 2)
    plain, asked = reference.test(window), reference.test(window, detection_rate=True)
    assert plain.detection_rate is plain.baseline_detection_rate is None
    layers = {name: replace(layer, detection_rate=None) for name, layer in asked.layers.items()}
    assert replace(asked, detection_rate=None, baseline_detection_rate=None, layers=layers) == plain
    bounds = WindowBounds(start_ms=0, end_ms=1)
    score = asked.to_score(window=bounds)
    assert score.detection_rate == asked.detection_rate
    assert score.layers["fc"].detection_rate == asked.layers["fc"].detection_rate
    assert score.content_sha256 == plain.to_score(window=bounds).content_sha256


# The baseline --------------------------------------------------------------------------------------------------------


def test_the_baseline_is_kept_with_the_reference_and_told_with_the_rate() -> None:
    reference = fitted(class_frame(1_500, 1, shares=SHARES))
    baseline = reference.manifest.baseline_detection_rate
    assert baseline is not None
    assert 0.0 <= baseline < 0.5
    assert fitted(class_frame(1_500, 1, shares=SHARES)).id == reference.id
    assert Manifest.model_validate_json(reference.manifest.text()) == reference.manifest
    result = reference.test(class_frame(150, 2, shares=SHARES), detection_rate=True)
    assert result.baseline_detection_rate == baseline


def test_a_small_reference_has_no_baseline_and_its_manifest_reads_as_before() -> None:
    manifest = fitted(gaussian_frame(300, 1)).manifest
    assert manifest.baseline_detection_rate is None
    assert "baseline" not in manifest.text(), "a reference fitted before the metric was known keeps its identity"


def test_a_strict_level_gets_the_signs_it_needs() -> None:
    drawing = Redraws(
        {"a": RatePool(torch.from_numpy(rows(200, 1)), (1.0,))},
        np.zeros(200, np.int64),
        alpha=0.001,
        seed=1,
        memory_bytes=0,
    )
    rates = drawing.rates({"a": torch.from_numpy(rows(100, 2, 3.0))}, np.zeros(100, np.int64), is_stratified=False)
    assert rates is not None
    assert rates.joint == 1.0
