import numpy as np
import pytest
from tests.support.samples import attacked, natural

from hydrophone.detectors.samples.labelled import check_natural, family_of, labelled_rows
from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.frame import concat


@pytest.mark.parametrize(
    ("attack", "family"),
    [
        ("FGSM.12", "one-step"),
        ("fgm", "one-step"),
        ("PGD.03", "iterated"),
        ("BIM", "iterated"),
        ("L2PGD1.61", "iterated-l2"),
        ("DeepFool", "minimal"),
        ("C&W", "minimal"),
        ("MyOwn.2", "myown"),
    ],
)
def test_a_family_is_told_by_the_name_without_its_strength(attack: str, family: str) -> None:
    assert family_of(attack) == family
    assert family_of(attack, {attack: "mine"}) == "mine"


def test_rows_of_one_source_are_held_out_together() -> None:
    labelled = labelled_rows(concat(attacked(50, 1)))
    held = labelled.held_out(0.3, seed=0)
    assert len(np.unique(labelled.sources)) == 50
    assert set(labelled.sources[held]).isdisjoint(labelled.sources[~held])
    assert held.sum() == 4 * 15
    assert (labelled.held_out(0.3, seed=0) == held).all()


def test_rows_without_ids_are_sources_of_their_own() -> None:
    frame = natural(40, 1, label=np.ones(40, int), attack=["PGD"] * 40)
    assert len(np.unique(labelled_rows(frame).sources)) == 40


@pytest.mark.parametrize(
    ("label", "rule"),
    [
        (None, "carry `label`"),
        (np.zeros(40, int), "each attack needs at least 20 rows labelled 1; got no attack"),
        (np.arange(40) < 5, "each attack needs at least 20 rows labelled 1; got {'PGD': 5}"),
    ],
)
def test_labels_that_teach_nothing_are_refused(label: np.ndarray | None, rule: str) -> None:
    told = None if label is None else np.asarray(label, int)
    with pytest.raises(ReferenceInvalid, match=rule.replace("{", r"\{")):
        labelled_rows(natural(40, 1, label=told, attack=["PGD"] * 40))


def test_a_model_that_answers_one_class_is_refused() -> None:
    predicted = np.where(np.arange(500) < 480, 1, 0)
    with pytest.raises(ReferenceInvalid, match=r"at most 90% of natural rows .* got 96.0%.*pre-processing"):
        check_natural(natural(500, 1, predicted=predicted), None)


def test_a_model_at_chance_is_refused() -> None:
    with pytest.raises(ReferenceInvalid, match=r"mean confidence .* at least 0.500; got 0.3333"):
        check_natural(natural(500, 1, output=np.full((500, 3), 1 / 3, np.float32)), None)


def test_an_absurd_accuracy_is_refused() -> None:
    with pytest.raises(ReferenceInvalid, match=r"`accuracy` on clean inputs must be at least 0.60; got 0.0033"):
        check_natural(natural(500, 1), 0.0033)
    check_natural(natural(500, 1), 0.92)


def test_frames_without_classes_can_hold_no_accuracy() -> None:
    frame = natural(50, 1)
    check_natural(type(frame)(frame.model, frame.layers, event_time_ms=frame.event_time_ms), None)
