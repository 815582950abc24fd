"""Which attack a row looks like: a random forest over output, embedding and measures. Nothing is unpickled to load it.

Attacks of one family are hardly told apart from one answer alone (BIM and PGD: not at all), so a family is named first,
and nothing is named where held-out rows say that too many such names were wrong.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree._tree import Tree

from hydrophone.detectors.samples.manifest import FOREST, SampleManifest
from hydrophone.detectors.samples.rows import Rows
from hydrophone.detectors.samples.seam import AttackGuess
from hydrophone.schemas.errors import ReferenceInvalid

__all__ = ["NATURAL", "AttackForest"]

NATURAL: Final = "natural"
TREES: Final = 200
LEAF: Final = 2
LEAF_NODE: Final = -1
TINY: Final = 1e-30

TRUSTED: Final = ("sklearn.tree._tree.Tree",)
"""All that the file may name beyond what skops holds harmless. A tree's nodes point at each other unchecked, so they
are checked here."""


@dataclass(frozen=True)
class AttackForest:
    """`layer`, output and `measures` are what its features are made of; there is no forest before it is `fitted`."""

    forest: RandomForestClassifier | None
    layer: str
    width: int
    output_classes: int | None
    measures: tuple[str, ...]

    def fitted(self, features: NDArray[np.float64], names: NDArray[Any], *, seed: int) -> "AttackForest":
        """`names` are attacks, or `NATURAL`."""
        forest = RandomForestClassifier(
            TREES, min_samples_leaf=LEAF, class_weight="balanced_subsample", random_state=seed, n_jobs=1
        )
        return replace(self, forest=forest.fit(features.astype(np.float32), names))

    def features(
        self, rows: Rows, scores: Mapping[str, NDArray[Any]], picked: NDArray[np.intp]
    ) -> NDArray[np.float64] | None:
        """`[picked, F]`; None where the frame lacks the embedding or the output."""
        return features_of(rows, scores, picked, self.layer, self.width, self.output_classes, self.measures)

    def probabilities(self, features: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[str]]:
        """`[m, A]`, and the name of each column; `NATURAL` is one of them."""
        assert self.forest is not None, "only a fitted forest is asked"
        X = np.ascontiguousarray(features, np.float32)
        # Tree by tree: what scikit-learn puts around this costs more than the trees where few rows are flagged.
        P = sum(tree.tree_.predict(X).reshape(len(X), -1) for tree in self.forest.estimators_)
        return np.asarray(P / np.sum(P, axis=1, keepdims=True)), [str(name) for name in self.forest.classes_]

    def guesses(self, features: NDArray[np.float64], manifest: SampleManifest) -> Sequence[AttackGuess]:
        if not len(features):
            return []
        P, names = self.probabilities(features)
        return [_guess(row, manifest) for row in attack_table(P, names, manifest.attacks)]

    def dump(self) -> bytes:
        import skops.io  # noqa: PLC0415  # only where a forest is written or read

        content: bytes = skops.io.dumps(self.forest)
        return content

    @classmethod
    def load(cls, content: bytes, manifest: SampleManifest) -> "AttackForest":
        """Raises `ReferenceInvalid` when the file names anything but a forest's own parts, or its trees are unsound."""
        import skops.io  # noqa: PLC0415  # only where a forest is written or read

        try:
            unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED))
            if unknown:
                raise ReferenceInvalid(f"`{FOREST}` may hold scikit-learn's trees alone; got {unknown}: fit it again")
            forest = skops.io.loads(content, trusted=list(TRUSTED))
        except ReferenceInvalid:
            raise
        except Exception as error:  # noqa: BLE001  # a file from outside may break the reader anywhere
            raise ReferenceInvalid(f"`{FOREST}` cannot be read: {error}; fetch or fit it again") from None
        _check_forest(forest, known={NATURAL, *manifest.attacks})
        width = manifest.layers[manifest.embedding]
        found = cls(forest, manifest.embedding, width, manifest.output_classes, manifest.measures)
        if forest.n_features_in_ != found.n_features:
            raise ReferenceInvalid(
                f"`{FOREST}` must take {found.n_features} features, as the manifest says; got {forest.n_features_in_}"
            )
        return found

    @property
    def n_features(self) -> int:
        return self.width + 2 * (self.output_classes or 0) + len(self.measures)


def _check_forest(forest: object, known: AbstractSet[str]) -> None:
    """Every node leads to a later one of its tree, or is a leaf: no walk leaves the arrays or goes round."""
    if not isinstance(forest, RandomForestClassifier) or not getattr(forest, "estimators_", None):
        raise ReferenceInvalid(f"`{FOREST}` must hold a fitted random forest; got {type(forest).__name__}")
    classes = [str(name) for name in forest.classes_]
    if not set(classes) <= known:
        raise ReferenceInvalid(f"`{FOREST}` may know the manifest's attacks alone, {sorted(known)}; got {classes}")
    if not all(
        _is_sound(getattr(tree, "tree_", None), forest.n_features_in_, len(classes)) for tree in forest.estimators_
    ):
        raise ReferenceInvalid(f"`{FOREST}` holds a tree whose nodes point outside it; fetch or fit it again")


def _is_sound(tree: object, features: int, classes: int) -> bool:
    if not isinstance(tree, Tree) or tree.n_features != features or tree.value.shape != (tree.node_count, 1, classes):
        return False
    left, right, split = tree.children_left, tree.children_right, tree.feature
    places = np.arange(tree.node_count)
    inner = left != LEAF_NODE
    if not inner.size or bool((right[~inner] != LEAF_NODE).any()):
        return False
    later = (left > places) & (left < len(places)) & (right > places) & (right < len(places))
    return bool((later & (split >= 0) & (split < features))[inner].all())


def features_of(
    rows: Rows,
    scores: Mapping[str, NDArray[Any]],
    picked: NDArray[np.intp],
    layer: str,
    width: int,
    output_classes: int | None,
    measures: tuple[str, ...],
) -> NDArray[np.float64] | None:
    embedding = rows.layer(layer, width)
    parts = [] if embedding is None else [embedding.cpu().numpy()[picked].astype(np.float64)]
    if output_classes is not None:
        output = rows.output(output_classes)
        if output is None:
            return None
        logs = np.log(output.cpu().numpy()[picked].astype(np.float64).clip(TINY))
        # In order too: how an attack leaves the runners-up does not depend on which classes they are.
        parts += [logs, -np.sort(-logs, axis=1)]
    if embedding is None:
        return None
    return np.hstack([*parts, np.column_stack([scores[name][picked] for name in measures])])


def attack_table(
    P: NDArray[np.float64], names: Sequence[str], families: Mapping[str, str]
) -> list[tuple[str, float, str, float]]:
    """Per row the likeliest family and attack, with their probabilities given that the row is an attack."""
    hostile = [k for k, name in enumerate(names) if name != NATURAL]
    shares = P[:, hostile] / P[:, hostile].sum(1, keepdims=True).clip(TINY)
    attacks = [names[k] for k in hostile]
    known = sorted({families[name] for name in attacks})
    member = np.array([[families[name] == family for family in known] for name in attacks], np.float64)
    grouped = shares @ member
    best, most = grouped.argmax(1), shares.argmax(1)
    rows = np.arange(len(P))
    return [
        (known[f], float(q), attacks[a], float(p))
        for f, q, a, p in zip(best, grouped[rows, best], most, shares[rows, most], strict=True)
    ]


def _guess(row: tuple[str, float, str, float], manifest: SampleManifest) -> AttackGuess:
    family, q, attack, p = row
    names_family = manifest.family_threshold is not None and q >= manifest.family_threshold
    names_attack = names_family and manifest.attack_threshold is not None and p >= manifest.attack_threshold
    return AttackGuess(family if names_family else None, q, attack if names_attack else None, p)
