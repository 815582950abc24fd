"""How many rows change sides together, and that a window tested so is tested as the oracle does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.frames import class_frame, gaussian_frame, plain_frame
from tests.support.oracle import rows_of_units
from tests.unit.detectors.test_reference import SHARES, assert_is_the_oracles, fitted, oracle

from hydrophone.detectors import Reference, bins
from hydrophone.detectors.bins import Bins, bin_rows, block_order
from hydrophone.schemas.frame import Frame


@pytest.mark.parametrize(
    ("reference", "window", "size"),
    [
        ([2_000], [500], 1),
        ([8_000], [79], 1),
        ([8_000], [80], 2),
        ([8_000], [500], 8),
        ([8_000], [1_280], 32),
        ([800] * 10, [50] * 10, 8),
        ([800] * 10, [10] * 10, 2),
        ([800] * 10, [7] * 10, 1),  # seven rows make three bins of two and leave one: too many
        ([7_900, 0, 100], [320, 5_000, 0], 8),  # who has no reference row to change places with does not count
        ([8_000], [0], 1),
    ],
)
def test_bins_are_the_largest_that_leave_enough(reference: list[int], window: list[int], size: int) -> None:
    assert bin_rows(reference, window) == size


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(1, 7), st.one_of(st.none(), st.integers(1, 20))
)
def test_sums_are_those_of_the_rows_of_each_unit(counts: list[int], size: int, most: int | None) -> None:
    made = Bins.of(counts, size, most=most)
    rows = torch.arange(1.0, sum(counts) + 1)
    found = made.sums(rows[None])[0] if sum(counts) else torch.empty(0)
    slow = torch.zeros(len(found))
    for row, unit in zip(rows, made.unit_of_row, strict=True):
        slow[unit] += row
    assert found.tolist() == slow.tolist()
    sizes = torch.bincount(made.unit_of_row, minlength=len(found))
    assert (sizes[made.moving] == size).all()
    assert len(made.moving) == sum(made.bins)
    if most is not None:
        assert sum(made.bins) <= max(most, 0) + len(counts)


def test_a_block_is_a_run_of_rows() -> None:
    made, times = Bins.of((11,), 3), block_order(11, 3)
    of_row = made.unit_of_row[np.argsort(times)]
    assert of_row.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What holds of thousands of rows, from a hundred rows on."""
    monkeypatch.setattr(bins, "SINGLE_ROWS", 100)
    monkeypatch.setattr(bins, "ENOUGH_BINS", 12)
    monkeypatch.setattr(bins, "MOST_LEFT", 0.2)
    return monkeypatch


def classed(rows: int, seed: int, shift: float = 0.0) -> Frame:
    return class_frame(rows, seed, shares=SHARES, shift=shift)


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("most", [10_000, 30])
def test_a_stratified_window_in_bins_is_the_oracles(small: pytest.MonkeyPatch, shift: float, most: int) -> None:
    small.setattr(bins, "MOST_BINS", most)
    reference, window = fitted(classed(330, 1)), classed(75, 2, shift)
    result = reference.test(window)
    assert (result.calibration, result.bin_rows) == ("stratified", 4)
    assert result.strata_rows is not None
    assert result.effective_rows == sum(rows - rows % 4 for rows in result.strata_rows.values()) < 75
    assert_is_the_oracles(result, oracle(reference, window, result))


@pytest.mark.parametrize("dimensions", [{"fc": 4}, {"conv": 16, "fc": 40}])
def test_a_plain_window_in_bins_is_the_oracles(small: pytest.MonkeyPatch, dimensions: dict[str, int]) -> None:
    small.setattr(bins, "MOST_BINS", 40)
    reference = fitted(gaussian_frame(420, 1, dimensions=dimensions))
    window = gaussian_frame(51, 2, dimensions=dimensions, shift=0.2)
    result = reference.test(window)
    assert (result.calibration, result.bin_rows, result.effective_rows) == ("permutation", 4, 48)
    assert_is_the_oracles(result, oracle(reference, window, result))


@pytest.mark.usefixtures("small")
def test_where_strata_are_ignored_a_bin_holds_rows_of_any() -> None:
    """Bins of one class on one side and of all on the other would not be exchangeable."""
    reference = fitted(gaussian_frame(330, 1, predicted=np.arange(330) % 3))
    window = gaussian_frame(51, 2, predicted=np.r_[np.zeros(19, np.int64), np.full(32, 77)])
    result = reference.test(window)
    assert (result.calibration, result.bin_rows) == ("permutation", 4)
    assert_is_the_oracles(result, oracle(reference, window, result))


def test_blocks_are_the_oracles_and_follow_time() -> None:
    def in_time(rows: int, seed: int) -> Frame:
        times = np.random.default_rng(seed + 50).permutation(rows)
        return gaussian_frame(rows, seed, dimensions={"a": 5, "b": 9}, event_time_ms=times, predicted=times % 2)

    reference = fitted(in_time(300, 1), calibration="blocks", block_rows=6)
    window = in_time(51, 2)
    result = reference.test(window)
    assert (result.calibration, result.bin_rows, result.effective_rows) == ("blocks", 6, 48)
    assert [window.event_time_ms[origin.row] for origin in result.origins] == list(range(51))
    assert_is_the_oracles(result, oracle(reference, window, result))


def test_blocks_of_a_reference_are_runs_of_its_traffic() -> None:
    times = np.random.default_rng(0).permutation(403)
    frame = plain_frame({"fc": times[:, None].astype(np.float32)}, event_time_ms=times)
    manifest, arrays = (made := fitted(frame, calibration="blocks", block_rows=20)._artefact).manifest, made.arrays
    runs = arrays["reference.fc"][:, 0].reshape(-1, 20)
    assert (np.diff(runs, axis=1) == 1).all()
    assert (np.diff(runs[:, 0]) >= 20).all()
    assert (manifest.block_rows, manifest.sizes.fit, manifest.sizes.reference) == (20, 143, 260)


def test_a_window_of_two_blocks_is_not_tested() -> None:
    reference = fitted(gaussian_frame(600, 1), calibration="blocks")
    assert reference.test(gaussian_frame(59, 2)).reason == "too_few_blocks"
    assert reference.test(gaussian_frame(60, 2)).status == "tested"


@pytest.mark.usefixtures("small")
def test_neither_order_nor_memory_matters_to_a_window_in_bins() -> None:
    artefact, window = fitted(classed(330, 1))._artefact, classed(75, 2, 0.5)
    roomy, tight = Reference(artefact, device="cpu"), Reference(artefact, device="cpu", memory_bytes=10_000)
    first = roomy.test(window)
    assert first.bin_rows > 1
    assert roomy.test(window.take(np.random.default_rng(0).permutation(75))) == first
    other = tight.test(window)
    assert other.p_value == first.p_value
    assert other.statistic == pytest.approx(first.statistic, abs=1e-5)


def test_the_oracle_spreads_bins_over_rows() -> None:
    units = np.array([[0.0], [1.0], [9.0]])
    assert rows_of_units(units, 5, 2, in_turn=True)[:, 0].tolist() == [0, 0, 1, 1, 9]
    assert rows_of_units(units, 5, 2, in_turn=False)[:, 0].tolist() == [0, 1, 0, 1, 9]
