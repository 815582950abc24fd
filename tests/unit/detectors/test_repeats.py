"""Which rows are one row, several times: the fast search against all pairs, and what may not matter to it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.frames import class_frame, gaussian_frame, plain_frame
from tests.support.repeats import slow_leaders

from hydrophone.detectors import Reference, fit_reference
from hydrophone.detectors.repeats import NEAR, OUTPUT_TOLERANCE, exact_leaders, groups_of
from hydrophone.schemas.frame import Frame

DIMENSIONS = {"conv": 3, "fc": 12}


def answered(frame: Frame, seed: int) -> Frame:
    P = np.random.default_rng(seed).dirichlet(np.ones(3), len(frame)).astype(np.float32)
    return replace(frame, output=P, predicted=P.argmax(1))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return fit_reference(
        [answered(gaussian_frame(240, 1, dimensions=DIMENSIONS), 1)], permutations=99, alpha=0.05, device="cpu"
    )


def moved(reference: Reference, frame: Frame, reaches: NDArray[np.float64]) -> Frame:
    """Every row moved in each layer by so many reaches of that layer, along its first feature."""
    layers = {}
    for name, values in frame.layers.items():
        layer = next(layer for layer in reference._assessor.repeats.layers if layer.name == name)
        layers[name] = values.astype(np.float32).copy()
        layers[name][:, 0] += (reaches * np.sqrt(layer.reach) * layer.scale[0]).astype(np.float32)
    return replace(frame, layers=layers)


def oracle(reference: Reference, frame: Frame) -> list[int]:
    rule = reference._assessor.repeats
    layers = {layer.name: frame.layers[layer.name].astype(np.float64) / layer.scale for layer in rule.layers}
    medians = {name: contract.median_distance for name, contract in reference.manifest.layers.items()}
    assert frame.output is not None
    assert frame.predicted is not None
    return slow_leaders(
        layers,
        {name: NEAR * median**2 for name, median in medians.items()},
        frame.predicted.tolist(),
        frame.output.astype(np.float64),
        OUTPUT_TOLERANCE,
    )


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    sources=st.lists(st.integers(0, 9), min_size=2, max_size=40),
    data=st.data(),
)
def test_the_search_finds_what_all_pairs_show(
    reference: Reference, seed: int, sources: list[int], data: st.DataObject
) -> None:
    steps = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.1, 2.0, 50.0])
    reaches = np.array(data.draw(st.lists(steps, min_size=len(sources), max_size=len(sources))))
    base = answered(gaussian_frame(10, seed, dimensions=DIMENSIONS), seed)
    window = moved(reference, base.take(np.array(sources)), reaches)
    assert reference._assessor.repeats.leaders(window).tolist() == oracle(reference, window)


def test_each_row_is_held_against_leaders_so_that_no_chain_forms(reference: Reference) -> None:
    row = answered(gaussian_frame(1, 5, dimensions=DIMENSIONS), 5).take(np.zeros(5, np.intp))
    window = moved(reference, row, np.array([0.0, 0.8, 1.6, 2.4, 0.1]))
    assert reference._assessor.repeats.leaders(window).tolist() == [0, 0, 2, 2, 0]


def test_rounding_to_half_precision_makes_a_near_repeat(reference: Reference) -> None:
    frame = answered(gaussian_frame(200, 7, dimensions=DIMENSIONS), 7)
    half = replace(
        frame,
        layers={name: values.astype(np.float16).astype(np.float32) for name, values in frame.layers.items()},
        output=frame.output.astype(np.float16).astype(np.float32) if frame.output is not None else None,
    )
    both = Frame(
        frame.model,
        {name: np.concatenate([values, half.layers[name]]) for name, values in frame.layers.items()},
        event_time_ms=np.int64(0),
        output=np.concatenate([frame.output, half.output]),
        predicted=np.concatenate([frame.predicted, half.predicted]),
    )
    assert reference._assessor.repeats.leaders(both).tolist() == [*range(200), *range(200)]
    assert not reference._assessor.repeats.exactly_equal(both.take(np.array([3, 203])))
    assert reference._assessor.repeats.exactly_equal(both.take(np.array([3, 3])))


def test_distinct_gaussian_rows_are_no_repeats(reference: Reference) -> None:
    window = answered(gaussian_frame(2_048, 8, dimensions=DIMENSIONS), 8)
    assert reference._assessor.repeats.leaders(window).tolist() == list(range(2_048))


@pytest.mark.parametrize("what", ["layer", "class", "output"])
def test_rows_that_differ_in_one_respect_are_no_repeats(reference: Reference, what: str) -> None:
    window = answered(gaussian_frame(1, 5, dimensions=DIMENSIONS), 5).take(np.zeros(2, np.intp))
    assert reference._assessor.repeats.leaders(window).tolist() == [0, 0]
    if what == "layer":
        window.layers["conv"][1, 2] += 0.5
    elif what == "class":
        assert window.predicted is not None
        window.predicted[1] += 1
    else:
        assert window.output is not None
        window.output[1] += [0.01, -0.01, 0.0]
    assert reference._assessor.repeats.leaders(window).tolist() == [0, 1]


def test_layers_and_answers_the_reference_does_not_know_do_not_count() -> None:
    plain = fit_reference([gaussian_frame(90, 1)], permutations=99, device="cpu")
    row = gaussian_frame(1, 2).layers["fc"].repeat(2, axis=0)
    window = plain_frame({"fc": row, "new": np.arange(2, dtype=np.float32)[:, None]}, predicted=np.array([0, 1]))
    assert plain._assessor.repeats.leaders(window).tolist() == [0, 0]


def test_vast_values_are_rows_like_others() -> None:
    plain = fit_reference([gaussian_frame(90, 1)], permutations=99, device="cpu")
    window = gaussian_frame(4, 2)
    window.layers["fc"][:, 0] = [3e38, -3e38, 3e38, 1.0]
    window.layers["fc"][2] = window.layers["fc"][0]
    assert plain._assessor.repeats.leaders(window).tolist() == [0, 1, 0, 3]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_exact_leaders_are_the_first_of_each_kind(rows: list[tuple[int, int, int]]) -> None:
    tables = [np.array(column, np.float32)[:, None] for column in zip(*rows, strict=True)]
    assert exact_leaders(tables).tolist() == [rows.index(row) for row in rows]


@given(st.lists(st.integers(0, 8), max_size=30))
def test_groups_hold_every_repeat_once_largest_first(kinds: list[int]) -> None:
    leaders = np.array([kinds.index(kind) for kind in kinds], np.intp)
    groups = [group.tolist() for group in groups_of(leaders)]
    assert sorted(groups) == sorted(
        [i for i, k in enumerate(kinds) if k == kind] for kind in set(kinds) if kinds.count(kind) > 1
    )
    assert all(len(one) > len(next_) or (len(one) == len(next_) and one < next_) for one, next_ in pairwise(groups))


def test_many_near_copies_cost_one_comparison_each(reference: Reference) -> None:
    """All pairs would be two million comparisons."""
    row = answered(gaussian_frame(1, 5, dimensions=DIMENSIONS), 5).take(np.zeros(2_048, np.intp))
    window = moved(reference, row, np.linspace(0, 0.5, 2_048))
    compared = 0
    layer = type(reference._assessor.repeats.layers[0])
    near = layer.near

    def counting(self: object, one: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.bool_]:
        nonlocal compared
        compared += len(others)
        return near(self, one, others)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "near", counting)
        leaders = reference._assessor.repeats.leaders(window)
    assert not leaders.any()
    assert compared <= 2 * 2_048


def test_classes_of_a_frame_with_predictions_alone_count_too() -> None:
    fitted = fit_reference([class_frame(200, 1, shares=(0.5, 0.5))], permutations=99, device="cpu")
    window = class_frame(2, 2, shares=(1.0,)).take(np.zeros(3, np.intp))
    assert window.predicted is not None
    window.predicted[2] = 1
    assert fitted._assessor.repeats.leaders(window).tolist() == [0, 0, 2]
