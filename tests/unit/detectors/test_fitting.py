"""Which rows are fitted on, which are permuted, which are left out, and what is refused."""

from typing import Any

import numpy as np
import pytest
from tests.support.frames import T0, class_frame, gaussian_frame, plain_frame

from hydrophone.detectors.artefact import CLASSES, ReferenceArtefact
from hydrophone.detectors.fitting import MIN_ROWS, SCALE_FLOOR, fit_artefact
from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.frame import Frame


def fit(*frames: Frame, **settings: Any) -> ReferenceArtefact:
    defaults = {"permutations": 99, "alpha": 0.05, "seed": 0, "fit_share": 1 / 3}
    return fit_artefact(frames, **(defaults | settings))


def numbered(rows: int, **parts: Any) -> Frame:
    """Each row bears its own number."""
    return plain_frame({"fc": np.arange(rows, dtype=np.float32)[:, None] * [[1.0, -1.0]]}, **parts)


def test_fit_rows_and_reference_rows_are_disjoint_and_make_up_all() -> None:
    artefact = fit(numbered(90))
    reference = artefact.arrays["reference.fc"][:, 0].tolist()
    assert len(reference) == len(set(reference)) == artefact.manifest.sizes.reference == 60
    rest = np.array(sorted(set(range(90)) - set(reference)), np.float64)
    assert artefact.manifest.sizes.fit == len(rest) == 30
    assert artefact.arrays["fit.fc.mean"].tolist() == pytest.approx([rest.mean(), -rest.mean()])
    assert artefact.arrays["fit.fc.scale"].tolist() == pytest.approx([rest.std()] * 2)


def test_the_median_distance_is_that_of_the_scaled_fit_rows() -> None:
    artefact = fit(gaussian_frame(90, 0))
    reference = {tuple(row) for row in artefact.arrays["reference.fc"]}
    rows = np.array([row for row in gaussian_frame(90, 0).layers["fc"] if tuple(row) not in reference], np.float64)
    scaled = (rows - rows.mean(0)) / rows.std(0)
    pairs = np.sort(np.linalg.norm(scaled[:, None] - scaled[None], axis=2)[np.triu_indices(len(rows), 1)])
    assert artefact.manifest.layers["fc"].median_distance == pytest.approx(pairs[(len(pairs) - 1) // 2], rel=1e-5)


def test_the_split_does_not_follow_the_order_of_the_file() -> None:
    reference = fit(numbered(300)).arrays["reference.fc"][:, 0]
    assert abs(reference.mean() - 149.5) < 30


def test_the_seed_decides_the_split() -> None:
    assert fit(numbered(90)).manifest == fit(numbered(90)).manifest
    assert fit(numbered(90)).manifest.sha256 != fit(numbered(90), seed=1).manifest.sha256


def test_rows_beyond_the_largest_reference_are_left_out_and_counted() -> None:
    sizes = fit(numbered(120), max_reference_rows=50).manifest.sizes
    assert (sizes.fit, sizes.reference, sizes.excluded_surplus) == (40, 50, 30)


def test_labelled_rows_are_left_out_and_counted() -> None:
    label = np.zeros(100, np.int64)
    label[10:17], label[50] = 1, 2
    artefact = fit(numbered(100, label=label))
    assert artefact.manifest.sizes.excluded_labelled == 8
    assert not {*range(10, 17), 50} & set(artefact.arrays["reference.fc"][:, 0].astype(int))


def test_labelled_rows_are_left_out_where_other_frames_have_no_labels() -> None:
    """A join of both kinds has no labels: adversarial rows would pass for natural ones."""
    attacked = gaussian_frame(30, 1, shift=50.0, label=np.ones(30, np.int64))
    artefact = fit(gaussian_frame(90, 0), attacked)
    assert artefact.manifest.sizes.excluded_labelled == 30
    assert artefact.arrays["reference.fc"].max() < 20


def test_rows_that_are_not_finite_are_left_out_and_counted() -> None:
    frame = gaussian_frame(100, 0, label=np.r_[np.ones(1, np.int64), np.zeros(99, np.int64)])
    frame.layers["fc"][[0, 3, 4], 1] = np.nan
    artefact = fit(frame)
    assert artefact.manifest.sizes.excluded_bad == 2
    assert artefact.manifest.sizes.excluded_labelled == 1
    assert np.isfinite(artefact.arrays["reference.fc"]).all()


def test_a_feature_that_hardly_varies_is_scaled_by_the_floor() -> None:
    values = np.random.default_rng(0).standard_normal((90, 8)).astype(np.float32)
    values[:, 3] *= 1e-4
    artefact = fit(plain_frame({"fc": values}))
    scale = artefact.arrays["fit.fc.scale"]
    assert scale[3] == pytest.approx(SCALE_FLOOR * np.sqrt(np.mean(np.delete(scale, 3) ** 2) * 7 / 8), rel=1e-3)


def test_a_layer_that_never_varies_can_be_fitted() -> None:
    live = gaussian_frame(90, 0).layers["fc"]
    artefact = fit(plain_frame({"dead": np.full((90, 3), 0.1, np.float32), "live": live}))
    assert artefact.arrays["fit.dead.scale"].tolist() == pytest.approx([SCALE_FLOOR] * 3)
    assert artefact.manifest.layers["dead"].median_distance == 1.0
    assert artefact.manifest.sizes.excluded_repeated == 0


def test_the_projection_has_two_axes_also_for_one_feature() -> None:
    axes = fit(plain_frame({"fc": np.arange(90, dtype=np.float32)[:, None]})).arrays["fit.fc.axes"]
    assert axes.shape == (1, 2)
    assert axes[0, 1] == 0


def test_classes_with_a_stratum_are_told_in_the_manifest() -> None:
    manifest = fit(class_frame(400, 0, shares=[0.6, 0.38, 0.02])).manifest
    assert manifest.has_predicted
    assert manifest.classes == (0, 1)


def test_a_layer_may_be_called_predicted() -> None:
    predicted = np.arange(90) % 3
    artefact = fit(gaussian_frame(90, 0, dimensions={"predicted": 4, "classes": 2}, predicted=predicted))
    assert artefact.arrays["reference.predicted"].shape == (60, 4)
    assert artefact.arrays[CLASSES].shape == (60,)


def test_the_version_is_the_digest_unless_named() -> None:
    manifest = fit(numbered(90)).manifest
    assert manifest.version == manifest.files["arrays.safetensors"][:12]
    assert fit(numbered(90), version="spring").manifest.version == "spring"


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("`permutations` must be at least 1", {"permutations": 0}),
        ("`alpha` must lie between 0 and 1", {"alpha": 0.0}),
        ("`alpha` must lie between 0 and 1", {"alpha": 1.0}),
        ("`alpha` must lie between 0 and 1", {"alpha": float("nan")}),
        ("`seed` must not be negative", {"seed": -1}),
        ("`fit_share` must lie between 0 and 1", {"fit_share": 1.0}),
        ("`max_reference_rows` must be at least 20", {"max_reference_rows": 19}),
        ("`permutations` must be more for alpha 0.01", {"alpha": 0.01, "permutations": 98}),
        ("`permutations` must be at least 1; got 0; `seed` must not be negative", {"permutations": 0, "seed": -3}),
    ],
)
def test_a_setting_that_breaks_a_rule_is_named(message: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ReferenceInvalid, match=message):
        fit(numbered(90), **settings)


@pytest.mark.parametrize("permutations", [19, 48, 99])
def test_just_enough_permutations_for_alpha_are_enough(permutations: int) -> None:
    assert (
        fit(numbered(90), alpha=1 / (permutations + 1), permutations=permutations).manifest.permutations == permutations
    )


def attacked_frame() -> Frame:
    return numbered(90, label=np.r_[np.zeros(59, np.int64), np.ones(31, np.int64)])


@pytest.mark.parametrize(
    ("message", "frames"),
    [
        ("got none", []),
        (f"at least {3 * MIN_ROWS} natural rows.*got 59", [numbered(59)]),
        ("31 labelled otherwise", [attacked_frame()]),
        ("mixed_models", [numbered(60), Frame("other", {"fc": np.zeros((60, 2))}, event_time_ms=np.int64(T0))]),
        ("bad_shape", [gaussian_frame(60, 0), gaussian_frame(60, 1, dimensions={"fc": 9})]),
        ("some lack .'b'", [gaussian_frame(60, 0), gaussian_frame(60, 1, dimensions={"fc": 8, "b": 2})]),
        ("some lack both", [numbered(60), numbered(60, predicted=np.zeros(60, np.int64))]),
    ],
)
def test_frames_that_make_no_reference_are_named(message: str, frames: list[Frame]) -> None:
    with pytest.raises(ReferenceInvalid, match=message):
        fit(*frames)
