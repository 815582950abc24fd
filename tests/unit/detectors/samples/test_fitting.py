import numpy as np
import pytest
import torch
from tests.support.samples import attacked, natural

from hydrophone.detectors.samples import SampleDetectors, fit_samples
from hydrophone.detectors.samples.density import ClassDensity
from hydrophone.detectors.samples.files import samples_files
from hydrophone.detectors.samples.fitting import Parts, embedding_of, least_threshold
from hydrophone.detectors.samples.rows import Rows
from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.frame import Frame, concat


def test_the_three_parts_of_natural_rows_are_disjoint() -> None:
    parts = Parts.draw(1_201, seed=3)
    together = np.concatenate([parts.density, parts.ranks, parts.calibration])
    assert sorted(together) == list(range(1_201))


@pytest.mark.parametrize("is_labelled", [False, True])
def test_nothing_but_the_calibration_depends_on_calibration_rows(is_labelled: bool) -> None:
    """Calibration rows are replaced by others: whatever was fitted must stay, byte for byte."""
    rows, others = natural(800, 1), natural(800, 99)
    calibration = Parts.draw(800, seed=0).calibration
    order = np.arange(800)
    order[calibration] += 800
    mixed = concat([rows, others]).take(order)
    labelled = attacked(60, 5) if is_labelled else None
    one, two = (fit_samples([frame], labelled=labelled, embedding="late", device="cpu") for frame in (rows, mixed))
    different = {name for name, array in one.arrays().items() if not np.array_equal(array, two.arrays()[name])}
    assert different == {"suspicion/calibration", "gate-rank/calibration"}
    if one.forest is not None and two.forest is not None:
        X = np.random.default_rng(0).normal(size=(50, one.forest.n_features))
        np.testing.assert_array_equal(one.forest.probabilities(X)[0], two.forest.probabilities(X)[0])


def test_density_rows_among_the_calibration_would_be_seen() -> None:
    """The trap that the rule is for: rows of a density are their own neighbours, so beside them clean rows look rare.
    Of new clean rows 5 % should lie below the 5 % point."""
    cpu = torch.device("cpu")
    density = natural(600, 1)
    fitted = ClassDensity.fit(Rows(density, cpu), "early", np.arange(3), bandwidth=0.5)
    new = fitted.score(Rows(natural(2_000, 2), cpu))["closeness.kde"]
    own = np.quantile(fitted.score(Rows(density, cpu))["closeness.kde"], 0.05)
    disjoint = np.quantile(fitted.score(Rows(natural(600, 3), cpu))["closeness.kde"], 0.05)
    assert (new < own).mean() > 0.2
    assert abs((new < disjoint).mean() - 0.05) < 4 * 0.0102


def test_sources_that_are_labelled_are_left_out_of_the_natural_rows() -> None:
    labelled = attacked(60, 5)
    same_id = natural(800, 1, sample_ids=[f"input-{row}" if row < 10 else f"other-{row}" for row in range(800)])
    same_rows = natural(800, 1, sample_ids=[f"other-{row}" for row in range(800)])
    found = fit_samples([same_id, concat([same_rows])], labelled=labelled, embedding="late", device="cpu")
    assert found.manifest.sizes.excluded_shared == 10
    copied = fit_samples([natural(800, 1), labelled[0]], labelled=labelled, embedding="late", device="cpu")
    assert copied.manifest.sizes.excluded_shared == 60


def test_the_same_rows_give_the_same_detectors(plain: SampleDetectors) -> None:
    again = fit_samples([natural(1_200, 1)], embedding="late", device="cpu")
    assert samples_files(again) == samples_files(plain)


def test_labelled_attacks_are_told_on_sources_held_out(learnt: SampleDetectors) -> None:
    manifest = learnt.manifest
    assert manifest.attacks == {"DeepFool": "minimal", "FGSM.12": "one-step"}
    assert min(manifest.held_out_auc.values()) > 0.8
    assert manifest.sizes.labelled + manifest.sizes.held_out == 600
    assert manifest.family_threshold is not None


def test_labels_shuffled_teach_nothing() -> None:
    frames = attacked(150, 5)
    rows = concat(frames)
    order = np.random.default_rng(0).permutation(len(rows))
    assert rows.label is not None
    assert rows.attack is not None
    told = [rows.attack[row] for row in order]
    shuffled = Frame(
        rows.model,
        rows.layers,
        event_time_ms=rows.event_time_ms,
        output=rows.output,
        uncertainty=rows.uncertainty,
        label=rows.label[order],
        attack=told,
        sample_ids=rows.sample_ids,
    )
    found = fit_samples([natural(800, 1)], labelled=[shuffled], embedding="late", device="cpu").manifest
    assert all(abs(area - 0.5) < 0.2 for area in found.held_out_auc.values())
    assert found.family_threshold is None


def test_labelled_rows_of_the_natural_frames_are_left_out() -> None:
    hostile = natural(100, 2, shift=5.0, label=np.ones(100, int))
    clean = natural(800, 1, label=np.zeros(800, int))
    found = fit_samples([clean, hostile], embedding="late", device="cpu")
    assert found.manifest.sizes.density + found.manifest.sizes.ranks + found.manifest.sizes.calibration == 800


def test_the_last_hidden_layer_is_found() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.integers(0, 3, 300)
    output = np.eye(3, dtype=np.float32)[predicted]
    layers = {
        "a": rng.normal(size=(300, 30)) + predicted[:, None],
        "z": rng.normal(size=(300, 9)) + 9 * predicted[:, None],
        "logits": output * 50,
    }
    assert embedding_of(Frame("m", layers, event_time_ms=np.array(0), output=output), list(layers)) == "z"


def test_a_threshold_is_where_names_are_right_often_enough() -> None:
    probability = np.linspace(1, 0, 1_000)
    is_right = np.random.default_rng(0).random(1_000) < probability
    found = least_threshold(probability, is_right)
    assert found is not None
    assert 0.5 < found < 0.85
    assert is_right[probability >= found].mean() >= 0.8
    assert least_threshold(probability[:50], np.zeros(50, bool)) is None


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        ({"frames": []}, "natural frames; got none"),
        ({"frames": [natural(100, 1)]}, "at least 400 natural rows"),
        ({"frames": [natural(800, 1)], "embedding": "none"}, "`embedding` must be a layer"),
        ({"frames": [natural(420, 1)], "reject_level": 0.002}, "needs 499 calibration rows"),
        ({"frames": [natural(800, 1)], "reject_level": 0.1}, "`reject_level` <= `abstain_level`"),
        ({"frames": [natural(800, 1)], "labelled": [natural(50, 2)]}, "carry `label`"),
        ({"frames": [natural(800, 1)], "accuracy": 0.34}, "`accuracy`"),
        (
            {
                "frames": [natural(800, 1)],
                "labelled": [natural(50, 2, model="b", label=np.ones(50, int), attack=["PGD"] * 50)],
            },
            "must be of model `classifier`; got `b`",
        ),
    ],
)
def test_a_broken_rule_is_named(how: dict[str, object], rule: str) -> None:
    with pytest.raises(ReferenceInvalid, match=rule):
        fit_samples(device="cpu", **how)  # type: ignore[arg-type]


def test_the_gate_is_tuned_on_what_it_should_refuse() -> None:
    found = fit_samples(
        [natural(600, 1)], outside=[natural(60, 2, shift=1.0)], embedding="late", components=2, device="cpu"
    )
    assert found.manifest.components in (2, 4)
    with pytest.raises(ReferenceInvalid, match="outside frames must bring"):
        fit_samples([natural(600, 1)], outside=[natural(60, 2).only(["late"])], embedding="late", device="cpu")
