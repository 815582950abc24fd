"""A window among clean windows: ranks, what is kept with the reference, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.frames import class_frame, gaussian_frame, plain_frame

from hydrophone.detectors import Reference, fit_reference
from hydrophone.detectors.calibration import MIN_WINDOWS, WindowNull, clean_windows
from hydrophone.schemas.errors import ReferenceInvalid

RANKS = np.arange(float(MIN_WINDOWS))


def reference() -> Reference:
    return fit_reference([class_frame(300, 1, shares=(0.6, 0.4))], permutations=99, device="cpu")


def test_a_rank_counts_the_window_itself() -> None:
    null = WindowNull(100, RANKS)
    assert null.p_value(-1.0) == 1.0
    assert null.p_value(MIN_WINDOWS + 1.0) == 1 / (MIN_WINDOWS + 1)
    assert null.p_value(MIN_WINDOWS - 1.0) == 2 / (MIN_WINDOWS + 1), "ties count as greater"


def test_ranks_of_exchangeable_windows_are_uniform() -> None:
    """All K + 1 windows in turn: the p-values are exactly 1/(K+1), ..., 1."""
    together = np.random.default_rng(0).permutation(np.linspace(0, 1, MIN_WINDOWS + 1))
    found = [WindowNull(5, np.delete(together, i)).p_value(together[i]) for i in range(len(together))]
    np.testing.assert_allclose(np.sort(found), np.arange(1, len(together) + 1) / len(together))


def test_e_values_of_exchangeable_windows_average_to_one() -> None:
    together = np.random.default_rng(1).standard_normal(MIN_WINDOWS + 1)
    found = [WindowNull(5, np.delete(together, i)).e_value(together[i]) for i in range(len(together))]
    assert np.mean(found) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("statistics", "rule"), [(RANKS[1:], "at least 199 clean ones; got 198"), (RANKS * np.nan, "finite numbers")]
)
def test_a_null_that_cannot_rank_is_refused(statistics: np.ndarray, rule: str) -> None:
    with pytest.raises(ReferenceInvalid, match=rule):
        WindowNull(10, statistics)


def test_a_calibrated_reference_ranks_and_keeps_its_statistic(tmp_path: Path) -> None:
    plain = reference()
    window = class_frame(40, 2, shares=(0.6, 0.4))
    calibrated = plain.calibrate(list(RANKS), rows=40)
    calibrated.save(tmp_path / "r")

    result = Reference.load(tmp_path / "r", device="cpu").test(window)

    before = plain.test(window)
    assert before.calibration == "stratified"
    assert result.statistic == before.statistic, "calibrating does not change what is measured"
    assert (result.calibration, result.calibration_windows, result.null_draws) == ("windows", MIN_WINDOWS, MIN_WINDOWS)
    assert result.p_value == WindowNull(40, RANKS).p_value(before.statistic or 0.0)
    assert result.reference.sha256 != before.reference.sha256


def test_a_larger_window_is_sampled_and_a_smaller_one_falls_back() -> None:
    calibrated = reference().calibrate(list(RANKS), rows=40)
    larger = calibrated.test(class_frame(90, 3, shares=(0.6, 0.4)))
    assert (larger.calibration, len(larger.origins)) == ("windows", 40)
    smaller = calibrated.test(class_frame(30, 3, shares=(0.6, 0.4)))
    assert (smaller.calibration, smaller.calibration_windows, smaller.null_draws) == ("stratified", None, 99)


def test_the_statistic_to_calibrate_with_is_the_one_that_is_ranked() -> None:
    plain, window = reference(), class_frame(90, 3, shares=(0.6, 0.4))
    ranked = plain.calibrate(list(RANKS), rows=40).test(window)
    assert plain.statistic(window, rows=40) == ranked.statistic
    assert plain.statistic(window, rows=91) is None


def test_clean_windows_are_disjoint_runs_in_time_order() -> None:
    traffic = plain_frame({"fc": np.arange(4_000.0)[:, None]}, event_time_ms=np.arange(4_000)[::-1])
    rows, windows = clean_windows(traffic)
    assert (rows, len(windows)) == (20, 200)
    assert windows[0].layers["fc"][:, 0].tolist() == list(range(3_999, 3_979, -1))
    assert len({origin.row for window in windows for origin in window.row_origins()}) == 4_000


def test_tumbling_windows_of_too_few_rows_are_left_out() -> None:
    times = np.r_[np.arange(5), 100 + np.arange(3), 200 + np.arange(5)]
    traffic = plain_frame({"fc": np.zeros((13, 1))}, event_time_ms=times)
    rows, windows = clean_windows(traffic, rows=4, window_ms=100)
    assert (rows, [len(window) for window in windows]) == (4, [5, 5])


def test_rows_of_the_reference_are_recognised() -> None:
    frame = gaussian_frame(300, 1)
    fitted = fit_reference([frame], permutations=99, device="cpu")
    assert fitted.shared_rows(frame) == fitted.manifest.sizes.reference
    assert fitted.shared_rows(gaussian_frame(300, 2)) == 0
