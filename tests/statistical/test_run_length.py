"""Clean windows ring the sequential rule once in as many windows as asked, or less often; an attack rings it soon.

All at a mean run length of 200. Windows are of two kinds: normal scores drawn from the model the correction states, and
p-values of the real test of Gaussian rows against one fixed reference.
"""

from collections.abc import Iterable

import numpy as np
import pytest
from scipy import stats
from tests.support.frames import plain_frame

from hydrophone.detectors import Reference, fit_reference
from hydrophone.detectors.finite_reference import UNLUCKY, shared_variance
from hydrophone.detectors.sequential import NO_EVIDENCE, accumulate, evidence_over_time

pytestmark = [pytest.mark.statistical, pytest.mark.slow]

ASKED = 200
ROWS = 100
PERMUTATIONS = 199


def run_length(p_values: Iterable[float], *, shared: float) -> int:
    """Windows until the first ring; all of them where none rings, so that means are lower bounds."""
    M, windows = NO_EVIDENCE, 0
    for p_value in p_values:
        M, windows = accumulate(M, p_value, shared=shared), windows + 1
        if evidence_over_time(M) >= ASKED:
            break
    return windows


def model(rng: np.random.Generator, shared: float, luck: float, *, windows: int, shift: float = 0.0) -> list[float]:
    """p-values of windows whose normal score is N(shift + luck · sqrt(shared), 1 − shared), on the grid of B = 999."""
    z = shift + luck * np.sqrt(shared) + np.sqrt(1 - shared) * rng.standard_normal(windows)
    return [float(p) for p in (1 + rng.binomial(999, stats.norm.sf(z))) / 1_000]


@pytest.mark.parametrize("ratio", [4, 16])
def test_mean_run_length_on_clean_windows_is_at_least_the_one_asked(ratio: int) -> None:
    """200 references, each with windows of its own; a mean run cut at 600 windows that is still above 200."""
    shared = shared_variance("permutation", tested=ROWS, reference_rows=ratio * ROWS)
    rng = np.random.default_rng([1, ratio])
    streams = [model(rng, shared, rng.standard_normal(), windows=600) for _ in range(200)]
    runs = [run_length(stream, shared=shared) for stream in streams]
    assert np.mean(runs) - 2.6 * np.std(runs) / np.sqrt(len(runs)) >= ASKED


@pytest.mark.parametrize("ratio", [4, 16])
def test_mean_run_length_holds_for_an_unlucky_reference_and_would_not_without_correction(ratio: int) -> None:
    shared = shared_variance("permutation", tested=ROWS, reference_rows=ratio * ROWS)
    rng = np.random.default_rng([2, ratio])
    streams = [model(rng, shared, UNLUCKY, windows=800) for _ in range(100)]
    corrected, plain = (np.array([run_length(s, shared=assumed) for s in streams]) for assumed in (shared, 0.0))
    assert corrected.mean() - 2.6 * corrected.std() / 10 >= ASKED
    assert plain.mean() + 2.6 * plain.std() / 10 < ASKED


def test_a_faint_but_lasting_shift_rings() -> None:
    """One deviation: no window alone is unusual (median p 0.16), twenty together are."""
    shared = shared_variance("permutation", tested=ROWS, reference_rows=16 * ROWS)
    rng = np.random.default_rng(3)
    streams = [model(rng, shared, 0.0, windows=600, shift=1.0) for _ in range(200)]
    delays = [run_length(stream, shared=shared) for stream in streams]
    assert np.mean(delays) <= 30


def reference_of(rng: np.random.Generator, name: str) -> Reference:
    rows = rng.standard_normal((24 * ROWS, 8)).astype(np.float32)
    return fit_reference([plain_frame({"fc": rows}, name)], permutations=PERMUTATIONS, device="cpu")


def p_of(reference: Reference, rng: np.random.Generator, name: str, *, hostile: int = 0) -> float:
    rows = rng.standard_normal((ROWS, 8))
    rows[:hostile] += 1.5 * rng.choice([-1, 1], (hostile, 8))
    p_value = reference.test(plain_frame({"fc": rows.astype(np.float32)}, name)).p_value
    assert p_value is not None
    return p_value


def test_windows_of_the_real_test_have_mean_evidence_of_at_most_one_against_each_of_nine_references_in_ten() -> None:
    """Ten references of 16 m rows; of each, thirty windows: the mean e-value at a shift of one is noisy, so 1.2."""
    shared = shared_variance("permutation", tested=ROWS, reference_rows=16 * ROWS)
    means = []
    for index in range(10):
        rng = np.random.default_rng([4, index])
        reference = reference_of(rng, f"reference {index}")
        p_values = [p_of(reference, rng, f"window {index} {window}") for window in range(30)]
        means.append(np.mean([accumulate(NO_EVIDENCE, p_value, shared=shared)[1] for p_value in p_values]))
    assert np.mean(means) <= 1
    assert np.sum(np.array(means) > 1.2) <= 1


def test_one_row_in_ten_hostile_rings_within_four_windows_on_average() -> None:
    delays = []
    shared = shared_variance("permutation", tested=ROWS, reference_rows=16 * ROWS)
    for index in range(8):
        rng = np.random.default_rng([5, index])
        reference = reference_of(rng, f"reference {index}")
        p_values = (p_of(reference, rng, f"hostile {window}", hostile=10) for window in range(20))
        delays.append(run_length(p_values, shared=shared))
    assert np.mean(delays) <= 4
