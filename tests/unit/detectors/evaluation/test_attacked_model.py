"""Which model was attacked: told where answers tell it, at chance where they do not, and never from a source seen."""

import numpy as np
import pytest
from tests.support.frames import frame_id

from hydrophone.detectors.evaluation import which_model
from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame

CLASSES = 4


def answers(name: str, rows: int, seed: int, *, sharp: float = 3.0, layer: int = 3, classes: int = CLASSES) -> Frame:
    rng = np.random.default_rng(seed)
    logits = sharp * np.eye(classes)[rng.integers(0, classes, rows)] + rng.standard_normal((rows, classes))
    output = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Frame(
        name,
        {"fc": np.zeros((rows, layer), np.float32)},
        event_time_ms=np.array(0),
        frame_id=frame_id(f"{name}{seed}"),
        output=output.astype(np.float32),
        label=np.ones(rows, int),
        sample_ids=[f"{seed}/{row}" for row in range(rows)],
    )


def test_models_that_answer_differently_are_told_apart() -> None:
    found = which_model({"A": [answers("a", 150, 1)], "B": [answers("b", 100, 2, sharp=9.0, layer=7)]})
    assert [(model.model, model.rows) for model in found.models] == [("A", 150), ("B", 100)]
    assert (found.right.share or 0) > 0.8
    assert found.mean_precision > 0.75
    assert found.chance == 0.5
    assert [sum(row) for row in found.confusion] == [150, 100]
    assert sum(found.confusion[k][k] for k in range(2)) == found.right.count
    assert found.is_grouped


def test_models_that_answer_alike_are_told_apart_by_chance_alone() -> None:
    found = which_model({"A": [answers("a", 200, 1)], "B": [answers("b", 200, 2)]})
    assert found.right.low is not None
    assert found.right.low < 0.5 < (found.right.high or 0) + 0.05


def test_a_source_is_never_on_both_sides() -> None:
    """Each source forty times over, with answers of its own: a forest that had seen it would know its model."""
    rng = np.random.default_rng(0)
    frames = {}
    for name, seed in (("A", 1), ("B", 2)):
        base = answers(name, 10, seed)
        rows = np.repeat(np.arange(10), 40)
        many = base.take(rows)
        noisy = (many.output if many.output is not None else rows) + rng.random((400, CLASSES)) * 1e-4
        frames[name] = [
            Frame(
                name,
                dict(many.layers),
                event_time_ms=np.array(0),
                output=noisy.astype(np.float32),
                label=many.label,
                sample_ids=many.sample_ids,
            )
        ]
    assert (which_model(frames).right.share or 0) < 0.85
    for parts in frames.values():
        object.__setattr__(parts[0], "sample_ids", None)
    leaky = which_model(frames)
    assert not leaky.is_grouped
    assert (leaky.right.share or 0) > 0.97


def test_only_adversarial_rows_speak() -> None:
    natural = answers("a", 60, 3)
    object.__setattr__(natural, "label", np.zeros(60, int))
    found = which_model({"A": [natural, answers("a", 30, 1)], "B": [answers("b", 25, 2, sharp=9.0)]})
    assert [model.rows for model in found.models] == [30, 25]


def test_what_cannot_be_told_apart_is_refused() -> None:
    one = answers("a", 40, 1)
    with pytest.raises(FrameInvalid, match="at least two models"):
        which_model({"A": [one]})
    with pytest.raises(FrameInvalid, match="equally wide"):
        which_model({"A": [one], "B": [answers("b", 40, 2, classes=5)]})
    with pytest.raises(FrameInvalid, match="`B` has 5"):
        which_model({"A": [one], "B": [answers("b", 5, 2)]})
    silent = answers("b", 40, 2)
    object.__setattr__(silent, "output", None)
    with pytest.raises(FrameInvalid, match="`B` lacks `output`"):
        which_model({"A": [one], "B": [silent]})
