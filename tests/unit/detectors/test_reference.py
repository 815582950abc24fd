"""`Reference.test` against the oracle, and what may not matter to it: order, packing, memory, device."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.frames import class_frame, frame_id, gaussian_frame, plain_frame, split_frame
from tests.support.oracle import OracleResult, joint_test, rows_of_units

from hydrophone.detectors import Reference, WindowResult, fit_reference
from hydrophone.detectors.artefact import CLASSES, OUTPUTS
from hydrophone.detectors.assessment import MIN_EFFECTIVE, MIN_SAMPLES, TOP_SUSPECTS
from hydrophone.detectors.kernels import BANDWIDTH_FACTORS
from hydrophone.detectors.window_test import WindowRows, window_statistics
from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame, concat, decode
from hydrophone.schemas.origins import Origin

B = 199
SHARES = (0.5, 0.3, 0.17, 0.03)


def fitted(*frames: Frame, **settings: Any) -> Reference:
    defaults: dict[str, Any] = {"permutations": B, "device": "cpu"}
    return fit_reference(frames, **(defaults | settings))


def scaled(reference: Reference, layer: str, rows: np.ndarray) -> np.ndarray:
    arrays = reference._artefact.arrays
    return (rows.astype(np.float64) - arrays[f"fit.{layer}.mean"]) / arrays[f"fit.{layer}.scale"]


def oracle(reference: Reference, frame: Frame, result: WindowResult) -> OracleResult:
    """The slow test on the rows `result` says were tested, in its order, under the very same splits."""
    prepared, artefact = reference.prepared, reference._artefact
    n = artefact.manifest.sizes.reference
    rows = np.array([origin.row for origin in result.origins])
    ours = np.zeros(n, np.int64) if prepared.strata is None else prepared.strata.assign(artefact.arrays[CLASSES])
    in_turn = result.calibration == "blocks"
    order = np.arange(n) if in_turn else np.argsort(ours, kind="stable")
    classes, b = None, result.bin_rows
    strata, sizes = [prepared.stratum(None, len(rows), b)], [(n, len(rows))]
    predicted = frame.classes()
    theirs = None if prepared.strata is None or predicted is None else prepared.strata.assign(predicted[rows])
    if result.calibration == "stratified":
        assert prepared.strata is not None
        assert theirs is not None
        rows, theirs = rows[np.argsort(theirs, kind="stable")], np.sort(theirs)
        classes = np.concatenate([np.sort(ours), theirs])
        sizes = list(zip(prepared.strata.counts(ours), prepared.strata.counts(theirs), strict=True))
        strata = [prepared.stratum(i, count, b) for i, (_, count) in enumerate(sizes)]
    Zx = [rows_of_units(s.Zx.numpy(), rows_x, b, in_turn=in_turn) for s, (rows_x, _) in zip(strata, sizes, strict=True)]
    Zy = [rows_of_units(s.Zy.numpy(), rows_y, b, in_turn=in_turn) for s, (_, rows_y) in zip(strata, sizes, strict=True)]
    # Bins of all rows are of rows as drawn; single rows stand in the order of their strata.
    is_as_drawn = result.calibration == "permutation" and not prepared.bins(b, is_stratified=False).are_single
    Z = np.concatenate([Zx[0][order] if is_as_drawn else np.concatenate(Zx), *Zy])
    layers, bandwidths, scores = {}, {}, {}
    groups = np.concatenate([ours[order], np.zeros(len(rows), np.int64) if theirs is None else theirs])
    for name, contract in artefact.manifest.layers.items():
        reference_rows = artefact.arrays[f"reference.{name}"][order]
        layers[name] = np.concatenate(
            [scaled(reference, name, part) for part in (reference_rows, frame.layers[name][rows])]
        )
        bandwidths[name] = [factor * contract.median_distance for factor in BANDWIDTH_FACTORS]
        scores[name] = closeness(artefact.arrays, name, layers[name], groups)
    if artefact.manifest.output_classes is not None:
        assert frame.output is not None
        P = np.concatenate([artefact.arrays[OUTPUTS][order], frame.output[rows]]).astype(np.float64)
        scores["(output)"] = certainty(P)
    return joint_test(layers, Z, bandwidths, classes, scores)


def closeness(arrays: Mapping[str, np.ndarray], name: str, rows: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Mahalanobis distance and residual of each row, by the textbook, from what was fitted."""
    means, axes, variances = (
        arrays[f"closeness.{name}.{part}"].astype(np.float64) for part in ("means", "axes", "variances")
    )
    offset = rows - means[groups]
    D = rows.shape[1]
    precision = axes @ np.diag(1 / variances) @ axes.T
    precision += (np.eye(D) - axes @ axes.T) / arrays[f"closeness.{name}.beyond"][0] if len(variances) < D else 0.0
    left = offset - offset @ axes[:, : min(64, D // 2)] @ axes[:, : min(64, D // 2)].T
    return [np.einsum("ij,jk,ik->i", offset, precision, offset), (left**2).sum(1)]


def certainty(P: np.ndarray) -> list[np.ndarray]:
    """Entropy and the odds against the answer, and their negatives."""
    entropy = -np.array([sum(p * np.log(p) for p in row if p > 0) for row in P])
    odds = np.array([np.log(sum(sorted(row)[:-1])) - np.log(max(row)) for row in P])
    return [entropy, -entropy, odds, -odds]


def assert_is_the_oracles(result: WindowResult, slow: OracleResult) -> None:
    one_permutation = 1 / (B + 1) + 1e-12
    assert result.statistic == pytest.approx(slow.statistic, abs=1e-5 * max(1.0, abs(slow.statistic)))
    assert result.p_value == pytest.approx(slow.p_value, abs=one_permutation)
    assert result.layers.keys() == slow.layers.keys()
    for name, (statistic, p_value, p_adjusted) in slow.layers.items():
        found = result.layers[name]
        assert found.statistic == pytest.approx(statistic, abs=1e-5 * max(1.0, abs(statistic)))
        assert found.p_value == pytest.approx(p_value, abs=one_permutation)
        assert found.p_adjusted == pytest.approx(p_adjusted, abs=one_permutation)
        if name in slow.mmd2:
            assert found.mmd2 == pytest.approx(slow.mmd2[name], abs=1e-6)


# Against the oracle --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.2, 3.0])
@pytest.mark.parametrize("dimensions", [{"fc": 4}, {"conv1": 3, "conv2": 16, "fc": 40}])
def test_a_plain_window_is_tested_as_the_oracle_does(shift: float, dimensions: dict[str, int]) -> None:
    reference = fitted(gaussian_frame(240, 1, dimensions=dimensions))
    window = gaussian_frame(45, 2, dimensions=dimensions, shift=shift)
    result = reference.test(window)
    assert result.calibration == "permutation"
    assert_is_the_oracles(result, oracle(reference, window, result))


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_a_stratified_window_is_tested_as_the_oracle_does(shift: float) -> None:
    reference = fitted(class_frame(330, 1, shares=SHARES))
    window = class_frame(60, 2, shares=SHARES, shift=shift)
    result = reference.test(window)
    assert result.calibration == "stratified"
    assert result.strata_rows is not None
    assert set(result.strata_rows) >= {"0", "1", "2"}
    assert_is_the_oracles(result, oracle(reference, window, result))


def test_the_answers_are_tested_as_the_oracle_does() -> None:
    def answered(rows: int, seed: int, sharpness: float) -> Frame:
        frame = class_frame(rows, seed, shares=(0.6, 0.4))
        logits = np.random.default_rng(seed).standard_normal((rows, 4)) * sharpness
        P = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return replace(frame, output=P.astype(np.float32))

    reference, window = fitted(answered(330, 1, 1.0)), answered(60, 2, 5.0)
    result = reference.test(window)
    assert_is_the_oracles(result, oracle(reference, window, result))
    assert result.branch is not None
    assert result.branch.layer == "(output)"
    assert result.branch.measure in {"certainty", "confidence"}, "two names of over-sure"
    assert result.rejected


def test_several_layers_share_the_strata() -> None:
    def layered(rows: int, seed: int) -> Frame:
        one, two = class_frame(rows, seed, shares=SHARES), gaussian_frame(rows, seed, dimensions={"x": 5})
        return plain_frame({"fc": one.layers["fc"], "conv": two.layers["x"]}, seed, predicted=one.predicted)

    reference, window = fitted(layered(300, 1)), layered(50, 2)
    result = reference.test(window)
    assert result.calibration == "stratified"
    assert_is_the_oracles(result, oracle(reference, window, result))


@pytest.mark.parametrize("case", ["class missing in the window", "class missing in the reference", "one class only"])
def test_strata_with_an_empty_side_are_tested_as_the_oracle_does(case: str) -> None:
    shares = {"class missing in the window": (0.6, 0.4, 0.0), "class missing in the reference": (0.4, 0.3, 0.3)}
    reference = fitted(class_frame(300, 1, shares=(0.6, 0.4) if "in the reference" in case else (0.4, 0.3, 0.3)))
    window = class_frame(50, 2, shares=shares.get(case, (1.0,)), shift=0.3)
    result = reference.test(window)
    assert result.calibration == "stratified"
    assert_is_the_oracles(result, oracle(reference, window, result))


def test_the_reference_block_edge_makes_no_difference() -> None:
    reference = fitted(gaussian_frame(420, 1), fit_share=0.2)
    assert reference.manifest.sizes.reference > 256
    window = gaussian_frame(30, 2, shift=0.3)
    result = reference.test(window)
    assert_is_the_oracles(result, oracle(reference, window, result))


def test_constant_layers_show_no_difference_and_do_not_hide_one() -> None:
    def frame(rows: int, seed: int, shift: float) -> Frame:
        live = gaussian_frame(rows, seed, shift=shift).layers["fc"]
        return plain_frame({"dead": np.full((rows, 7), 0.1, np.float32), "live": live}, seed)

    reference = fitted(frame(240, 1, 0.0))
    same, moved = reference.test(frame(40, 2, 0.0)), reference.test(frame(40, 3, 2.0))
    assert same.layers["dead"].p_value == moved.layers["dead"].p_value == 1.0
    assert moved.p_value == 1 / (B + 1)
    assert moved.branch is not None
    assert moved.branch.layer == "live"


def test_one_vast_value_leaves_numbers_numbers() -> None:
    window = gaussian_frame(60, 2)
    window.layers["fc"][3, 1] = 3e38
    result = fitted(gaussian_frame(240, 1)).test(window)
    assert result.p_value is not None
    assert result.p_value > 0.05
    assert np.isfinite([result.statistic, result.e_value, *result.row_scores]).all()


# What may not matter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [gaussian_frame, lambda rows, seed: class_frame(rows, seed, shares=SHARES)])
def test_neither_order_nor_packing_nor_a_detour_over_evidence_matters(make: Callable[[int, int], Frame]) -> None:
    reference = fitted(make(300, 1))
    parts = split_frame(make(90, 2), [20, 50], ids=[frame_id(i) for i in ("a", "b", "c")])
    first = reference.test(parts)
    for order in itertools.permutations(parts):
        assert reference.test(iter(order)) == first
    assert reference.test(concat(parts)) == first
    shuffled = concat(parts).take(np.random.default_rng(0).permutation(90))
    assert reference.test(shuffled) == first
    evidence = decode(shuffled.encode())
    assert isinstance(evidence, Frame)
    assert reference.test(evidence) == first
    assert reference.test([evidence.take(np.arange(40)), evidence.take(np.arange(40, 90))]) == first


def test_where_a_record_stood_does_not_matter_to_the_numbers() -> None:
    reference, window = fitted(gaussian_frame(240, 1)), gaussian_frame(40, 2)
    origins = [Origin(window.frame_id, row, partition=3, offset=17) for row in range(40)]
    moved = reference.test(replace(window, origins=origins))
    plain = reference.test(window)
    assert moved.p_value == plain.p_value
    assert moved.row_scores == plain.row_scores
    assert [origin.row for origin in moved.origins] == [origin.row for origin in plain.origins]


@pytest.mark.parametrize("make", [gaussian_frame, lambda rows, seed: class_frame(rows, seed, shares=SHARES)])
def test_a_reference_short_of_memory_gives_the_same_answer(make: Callable[[int, int], Frame]) -> None:
    artefact = fitted(make(300, 1))._artefact
    roomy, tight = Reference(artefact, device="cpu"), Reference(artefact, device="cpu", memory_bytes=10_000)
    assert roomy.prepared._kept is not None
    assert tight.prepared._kept is None
    for seed, rows in ((2, 60), (3, 25), (2, 60)):
        one, other = roomy.test(make(rows, seed)), tight.test(make(rows, seed))
        assert one.p_value == other.p_value
        assert one.statistic == pytest.approx(other.statistic, abs=1e-5)
        assert [s.row for s in one.suspects] == [s.row for s in other.suspects]


def test_the_callers_frames_are_left_alone() -> None:
    train, window = gaussian_frame(240, 1), gaussian_frame(40, 2)
    before = train.encode(), window.encode()
    fitted(train).test(window)
    assert (train.encode(), window.encode()) == before


def test_a_decoded_frame_is_tested_without_a_warning() -> None:
    decoded = decode(gaussian_frame(40, 2).encode())
    assert isinstance(decoded, Frame)
    reference = fitted(gaussian_frame(240, 1))
    assert reference.test(decoded) == reference.test(gaussian_frame(40, 2))


def test_layers_the_reference_does_not_know_are_ignored() -> None:
    reference = fitted(gaussian_frame(240, 1))
    known = gaussian_frame(40, 2)
    more = [
        plain_frame({"fc": known.layers["fc"][:20], "new": np.full((20, 3), np.nan, np.float32)}, "a"),
        plain_frame({"fc": known.layers["fc"][20:], "new": np.zeros((20, 3), np.float32)}, "b"),
    ]
    assert set(reference.test(more).layers) == {"fc"}
    assert len(reference.test(more).origins) == 40


# What is refused or not tested ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "reason"), [([], "no_rows"), ([MIN_SAMPLES - 1], "too_few_rows"), ([10, MIN_SAMPLES - 11], "too_few_rows")]
)
def test_too_few_rows_are_an_answer(rows: Sequence[int], reason: str) -> None:
    result = fitted(gaussian_frame(240, 1)).test([gaussian_frame(n, seed) for seed, n in enumerate(rows)])
    assert (result.status, result.reason) == ("not_tested", reason)
    assert result.p_value is None
    assert not result.rejected
    assert len(result.origins) == sum(rows)


def test_just_enough_rows_are_tested() -> None:
    assert fitted(gaussian_frame(240, 1)).test(gaussian_frame(MIN_SAMPLES, 2)).status == "tested"


def test_rows_that_are_not_finite_are_left_out() -> None:
    reference, window = fitted(gaussian_frame(240, 1)), gaussian_frame(50, 2)
    window.layers["fc"][7, 0] = np.nan
    result = reference.test(window)
    assert {origin.row for origin in result.origins} == set(range(50)) - {7}
    window.layers["fc"][:] = np.inf
    assert reference.test(window).reason == "no_finite_rows"


@pytest.mark.parametrize(
    ("reason", "window"),
    [
        ("missing_tensor:layer.fc", gaussian_frame(40, 2, dimensions={"conv": 8})),
        ("wrong_dimension", gaussian_frame(40, 2, dimensions={"fc": 9})),
        ("wrong_model", Frame("other", {"fc": np.zeros((40, 8))}, event_time_ms=np.int64(0))),
    ],
)
def test_a_window_the_reference_does_not_fit_is_named(reason: str, window: Frame) -> None:
    reference = fitted(gaussian_frame(240, 1))
    with pytest.raises(FrameInvalid) as caught:
        reference.test([gaussian_frame(40, 3), window])
    assert caught.value.reason == reason


# Classes -------------------------------------------------------------------------------------------------------------


def test_a_benign_change_of_class_mix_alarms_only_without_strata() -> None:
    train, window = class_frame(600, 1, shares=(0.5, 0.5)), class_frame(100, 2, shares=(0.95, 0.05))
    stratified = fitted(train).test(window)
    plain = fitted(plain_frame(train.layers, 1)).test(plain_frame(window.layers, 2))
    assert stratified.calibration == "stratified"
    assert not stratified.rejected
    assert plain.p_value == 1 / (B + 1)


def test_a_shift_of_one_class_alarms_within_strata() -> None:
    window = class_frame(100, 2, shares=(0.5, 0.5), shift=1.5)
    result = fitted(class_frame(600, 1, shares=(0.5, 0.5))).test(window)
    assert result.calibration == "stratified"
    assert result.p_value == 1 / (B + 1)


def test_unseen_classes_are_other_and_not_exchanged_with_nobody() -> None:
    predicted = np.r_[np.zeros(30, np.int64), np.full(10, 77)]
    window = gaussian_frame(40, 2, predicted=predicted)
    result = fitted(gaussian_frame(240, 1, predicted=np.arange(240) % 2)).test(window)
    assert result.calibration == "stratified"
    assert result.strata_rows == {"0": 30, "other": 10}
    assert result.effective_rows == 30


def test_with_too_few_effective_rows_the_permutations_ignore_classes_and_say_so() -> None:
    predicted = np.r_[np.zeros(MIN_EFFECTIVE - 1, np.int64), np.full(30, 77)]
    window = gaussian_frame(len(predicted), 2, predicted=predicted)
    reference = fitted(gaussian_frame(240, 1, predicted=np.arange(240) % 2))
    result = reference.test(window)
    assert result.calibration == "permutation"
    assert result.strata_rows is None
    assert result.effective_rows == len(predicted)
    assert_is_the_oracles(result, oracle(reference, window, result))


def test_a_reference_without_classes_permutes_plainly() -> None:
    window = gaussian_frame(40, 2, predicted=np.arange(40) % 2)
    assert fitted(gaussian_frame(240, 1)).test(window).calibration == "permutation"


# Suspects ------------------------------------------------------------------------------------------------------------


def test_planted_rows_are_the_suspects() -> None:
    window = gaussian_frame(100, 2, shift=3.0, shifted=TOP_SUSPECTS, sample_ids=[f"s{i}" for i in range(100)])
    result = fitted(gaussian_frame(400, 1)).test(window)
    assert result.rejected
    assert {suspect.row for suspect in result.suspects} == set(range(TOP_SUSPECTS))
    assert {suspect.sample_id for suspect in result.suspects} == {f"s{i}" for i in range(TOP_SUSPECTS)}
    scores = [suspect.score for suspect in result.suspects]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == max(result.row_scores)


def test_planted_rows_are_the_suspects_within_strata() -> None:
    window = class_frame(100, 2, shares=(0.5, 0.5), client_ids=[f"c{i}" for i in range(100)])
    window.layers["fc"][:10] += 3.0
    result = fitted(class_frame(500, 1, shares=(0.5, 0.5))).test(window)
    assert result.rejected
    assert len({s.row for s in result.suspects} & set(range(10))) >= 9
    assert all(s.client_id == f"c{s.row}" for s in result.suspects)


def test_a_suspect_is_placed_on_the_two_leading_axes() -> None:
    reference = fitted(gaussian_frame(240, 1))
    window = gaussian_frame(40, 2)
    suspect = reference.test(window).suspects[0]
    place = scaled(reference, "fc", window.layers["fc"][suspect.row]) @ reference._artefact.arrays["fit.fc.axes"]
    assert suspect.xy == pytest.approx(tuple(place), abs=1e-4)


# Device --------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("make", [gaussian_frame, lambda rows, seed: class_frame(rows, seed, shares=SHARES)])
def test_cuda_agrees_with_the_cpu_within_two_permutations(make: Callable[[int, int], Frame]) -> None:
    artefact = fitted(make(300, 1))._artefact
    cpu, cuda = Reference(artefact, device="cpu"), Reference(artefact, device="cuda")
    for seed in range(2, 7):
        one, other = cpu.test(make(60, seed)), cuda.test(make(60, seed))
        assert one.p_value is not None
        assert other.p_value == pytest.approx(one.p_value, abs=2 / (B + 1) + 1e-12)
        assert one.origins == other.origins


def test_the_statistics_of_all_columns_are_the_oracles() -> None:
    reference, window = fitted(gaussian_frame(240, 1)), gaussian_frame(40, 2)
    result = reference.test(window)
    rows = np.array([origin.row for origin in result.origins])
    given = WindowRows({"fc": window.layers["fc"][rows]}, np.zeros(len(rows), np.int64), is_stratified=False)
    fast = window_statistics(reference.prepared, given).joint.statistics
    in_our_order = [0, 2, 3, 1, 4, 5]  # the oracle's density stands beside its kernel
    np.testing.assert_allclose(fast.numpy(), oracle(reference, window, result).statistics[in_our_order], atol=5e-5)
