"""Predicted classes as strata: fixed at fit, everything unknown is one stratum of its own."""

import numpy as np
import pytest

from hydrophone.detectors.strata import MIN_STRATUM_ROWS, Strata, exchangeable


def test_classes_with_enough_rows_have_a_stratum_each() -> None:
    predicted = np.repeat([7, -2, 5], [40, 25, 19])
    strata = Strata.fit(predicted, reference_rows=len(predicted))
    assert strata.classes == (-2, 7)
    assert strata.names() == ("-2", "7", "other")
    assert len(strata) == 3


def test_fit_rows_stand_for_the_reference_rows_by_their_share() -> None:
    predicted = np.repeat([0, 1], [10, 9])
    assert Strata.fit(predicted, reference_rows=2 * 19).classes == (0,)
    assert Strata.fit(predicted, reference_rows=19).classes == ()
    assert MIN_STRATUM_ROWS == 20


def test_unseen_and_merged_classes_are_other() -> None:
    strata = Strata((-2, 7))
    assigned = strata.assign(np.array([7, -2, 5, 8, -9, 2**62, -(2**63)]))
    assert assigned.tolist() == [1, 0, 2, 2, 2, 2, 2]
    assert strata.counts(assigned) == (1, 1, 5)


def test_without_a_class_of_its_own_everything_is_other() -> None:
    strata = Strata(())
    assert strata.assign(np.array([3, 4])).tolist() == [0, 0]
    assert strata.counts(np.array([0, 0])) == (2,)


@pytest.mark.parametrize(
    ("reference", "window", "expected"), [((5, 5), (3, 4), 7), ((5, 0), (3, 4), 3), ((0, 0), (3, 4), 0)]
)
def test_rows_count_where_they_have_somebody_to_change_places_with(
    reference: tuple[int, ...], window: tuple[int, ...], expected: int
) -> None:
    assert exchangeable(reference, window) == expected
