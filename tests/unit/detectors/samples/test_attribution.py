import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import skops.io
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from tests.support.samples import attacked

from hydrophone.detectors.samples import SampleDetectors
from hydrophone.detectors.samples.attribution import NATURAL, AttackForest
from hydrophone.detectors.samples.rows import Rows
from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.frame import concat


@pytest.fixture
def forest(learnt: SampleDetectors) -> AttackForest:
    assert learnt.forest is not None
    return learnt.forest


@pytest.fixture
def small(forest: AttackForest) -> AttackForest:
    """Of few trees: what is refused does not depend on how many there are."""
    X = np.random.default_rng(0).normal(size=(90, forest.n_features))
    y = np.array(["FGSM.12", "DeepFool", NATURAL] * 30)
    return replace(forest, forest=RandomForestClassifier(5, random_state=0).fit(X, y))


def features(learnt: SampleDetectors, forest: AttackForest, seed: int) -> np.ndarray:
    frame = concat(attacked(60, seed))
    scores = learnt.judge(frame).scores
    found = forest.features(Rows(frame, torch.device("cpu")), scores, np.arange(len(frame)))
    assert found is not None
    return found


def test_probabilities_are_scikit_learns(learnt: SampleDetectors, forest: AttackForest) -> None:
    X = features(learnt, forest, 50)
    P, names = forest.probabilities(X)
    assert forest.forest is not None
    np.testing.assert_allclose(P, forest.forest.predict_proba(X.astype(np.float32)), atol=1e-6)
    assert names == sorted(["FGSM.12", "DeepFool", NATURAL])


def test_attacks_that_were_seen_are_named(learnt: SampleDetectors) -> None:
    frames = attacked(100, 60)
    for frame, family in ((frames[1], "one-step"), (frames[2], "minimal")):
        verdicts = learnt.judge(frame)
        named = [guess.family for guess in verdicts.attacks if guess is not None and not guess.has_abstained]
        assert len(named) > 50
        assert named.count(family) / len(named) > 0.8
        assert [guess is not None for guess in verdicts.attacks] == verdicts.flagged.tolist()


def test_too_close_to_call_is_an_abstention(learnt: SampleDetectors, forest: AttackForest) -> None:
    X = features(learnt, forest, 50)[:20]
    strict = learnt.manifest.model_copy(update={"family_threshold": 1.1})
    assert all(guess.has_abstained and guess.attack is None for guess in forest.guesses(X, strict))
    never = learnt.manifest.model_copy(update={"family_threshold": None})
    assert all(guess.has_abstained for guess in forest.guesses(X, never))


def test_it_comes_back_as_it_was(learnt: SampleDetectors, forest: AttackForest) -> None:
    X = features(learnt, forest, 50)
    loaded = AttackForest.load(forest.dump(), learnt.manifest)
    np.testing.assert_array_equal(loaded.probabilities(X)[0], forest.probabilities(X)[0])


def test_another_kind_of_object_is_refused(learnt: SampleDetectors) -> None:
    other = skops.io.dumps(LogisticRegression().fit(np.eye(4), [0, 1, 0, 1]))
    with pytest.raises(ReferenceInvalid, match="must hold a fitted random forest; got LogisticRegression"):
        AttackForest.load(other, learnt.manifest)


def test_a_file_that_names_other_code_is_refused_unread(learnt: SampleDetectors, small: AttackForest) -> None:
    def poisoned(schema: dict[str, object]) -> None:
        schema["content"] = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "content": {}}

    with pytest.raises(ReferenceInvalid, match=r"samples-forest.skops"):
        AttackForest.load(_altered(small.dump(), poisoned), learnt.manifest)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_bytes_that_are_no_forest_are_refused(learnt: SampleDetectors, content: bytes) -> None:
    with pytest.raises(ReferenceInvalid, match="cannot be read"):
        AttackForest.load(content, learnt.manifest)


@pytest.mark.parametrize("field", ["left_child", "right_child", "feature"])
def test_a_tree_that_points_outside_itself_is_refused(learnt: SampleDetectors, small: AttackForest, field: str) -> None:
    """skops loads it, and asking it would read memory that is not the tree's."""
    loaded = skops.io.loads(small.dump(), trusted=["sklearn.tree._tree.Tree"])
    tree = loaded.estimators_[3].tree_
    state = tree.__getstate__()
    inner = np.flatnonzero(state["nodes"]["left_child"] >= 0)
    state["nodes"][field][inner[-1]] = 10_000_000
    tree.__setstate__(state)
    with pytest.raises(ReferenceInvalid, match="point outside"):
        AttackForest.load(skops.io.dumps(loaded), learnt.manifest)


def test_a_tree_that_goes_round_is_refused(learnt: SampleDetectors, small: AttackForest) -> None:
    loaded = skops.io.loads(small.dump(), trusted=["sklearn.tree._tree.Tree"])
    tree = loaded.estimators_[0].tree_
    state = tree.__getstate__()
    inner = np.flatnonzero(state["nodes"]["left_child"] >= 0)
    state["nodes"]["left_child"][inner[-1]] = 0
    tree.__setstate__(state)
    with pytest.raises(ReferenceInvalid, match="point outside"):
        AttackForest.load(skops.io.dumps(loaded), learnt.manifest)


def test_a_forest_of_other_features_or_attacks_is_refused(learnt: SampleDetectors, forest: AttackForest) -> None:
    assert forest.forest is not None
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.array(["FGSM.12", NATURAL] * 30)
    narrow = replace(forest, forest=RandomForestClassifier(3, random_state=0).fit(X, y))
    with pytest.raises(ReferenceInvalid, match=r"must take .* features"):
        AttackForest.load(narrow.dump(), learnt.manifest)
    other = replace(forest, forest=RandomForestClassifier(3, random_state=0).fit(X, np.where(y == NATURAL, y, "zap")))
    with pytest.raises(ReferenceInvalid, match=r"may know the manifest's attacks alone"):
        AttackForest.load(other.dump(), learnt.manifest)


def _altered(content: bytes, change: object) -> bytes:
    """A skops file with another schema."""
    assert callable(change)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "schema.json":
                schema = json.loads(data)
                change(schema)
                data = json.dumps(schema).encode()
            new.writestr(name, data)
    return out.getvalue()
