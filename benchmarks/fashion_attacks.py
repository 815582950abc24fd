"""Images made to fool a model, by the adversarial-robustness-toolbox, as an endpoint would receive them: in 8 bits.

Fast gradient sign (Goodfellow et al.), the basic iterative method (Kurakin et al.), projected gradient descent (Madry
et al.) and DeepFool (Moosavi-Dezfooli et al.). No attack here knows of the detector.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from art.attacks.evasion import (
    BasicIterativeMethod,
    DeepFool,
    FastGradientMethod,
    ProjectedGradientDescentPyTorch,
)
from art.estimators.classification import PyTorchClassifier
from benchmarks.fashion import CLASSES, SIDE, Images
from benchmarks.fashion_model import as_input, predict
from numpy.typing import NDArray
from torch import nn

__all__ = ["ATTACKS", "AttackRecord", "attack", "gaussian_noise"]

BATCH: Final = 250
BIM_STEPS: Final = 10
PGD_STEPS: Final = 20
DEEPFOOL_STEPS: Final = 30
DEEPFOOL_CANDIDATES: Final = 5
OVERSHOOT: Final = 0.02
"""Share by which DeepFool goes past the boundary; with ART's own 1e-6 the 8 bits would undo it."""


@dataclass(frozen=True, slots=True)
class AttackRecord:
    """How an attack fared. `success`: share of sources that are now classified otherwise; distances are mean norms in
    units of the whole pixel range, after rounding to 8 bits.
    """

    name: str
    success: float
    linf: float
    l2: float


def _pgd(eps: float, *, norm: float = np.inf) -> Callable[[PyTorchClassifier], Any]:
    def build(classifier: PyTorchClassifier) -> Any:
        return ProjectedGradientDescentPyTorch(
            classifier,
            norm=norm,
            eps=eps,
            eps_step=2.5 * eps / PGD_STEPS,  # Madry et al.: the ball can be crossed, whatever the number of steps
            max_iter=PGD_STEPS,
            num_random_init=1,
            batch_size=BATCH,
            verbose=False,
        )

    return build


def _fgsm(eps: float) -> Callable[[PyTorchClassifier], Any]:
    return lambda classifier: FastGradientMethod(classifier, eps=eps, batch_size=BATCH)


def _bim(eps: float) -> Callable[[PyTorchClassifier], Any]:
    return lambda classifier: BasicIterativeMethod(
        classifier, eps=eps, eps_step=2 * eps / BIM_STEPS, max_iter=BIM_STEPS, batch_size=BATCH, verbose=False
    )


def _deepfool(classifier: PyTorchClassifier) -> Any:
    return DeepFool(
        classifier,
        max_iter=DEEPFOOL_STEPS,
        epsilon=OVERSHOOT,
        nb_grads=DEEPFOOL_CANDIDATES,
        batch_size=BATCH,
        verbose=False,
    )


ATTACKS: Final[Mapping[str, Callable[[PyTorchClassifier], Any]]] = {
    "FGSM.03": _fgsm(0.03),
    "FGSM.12": _fgsm(0.12),
    "BIM.12": _bim(0.12),
    "PGD.01": _pgd(0.01),
    "PGD.03": _pgd(0.03),
    "PGD.12": _pgd(0.12),
    "L2PGD.40": _pgd(0.40, norm=2),
    "L2PGD1.61": _pgd(1.61, norm=2),
    "DeepFool": _deepfool,
}


def attack(name: str, model: nn.Module, sources: Images, *, seed: int) -> tuple[NDArray[np.uint8], AttackRecord]:
    """The attacked images, one for each source, whether or not it fools the model."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # ART draws PGD's starting points from numpy's global generator
    classifier = PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, SIDE, SIDE),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    found = ATTACKS[name](classifier).generate(as_input(sources.values), y=sources.labels.astype(np.int64))
    model.eval()
    attacked = _eight_bits(found)
    return attacked, _record(name, model, sources, attacked)


def gaussian_noise(sources: Images, *, deviation: float, seed: int) -> NDArray[np.uint8]:
    """A control: noise of the size of an attack that means no harm."""
    noise = np.random.default_rng(seed).normal(0.0, deviation, as_input(sources.values).shape)
    return _eight_bits(as_input(sources.values) + noise)


def _eight_bits(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(np.rint(values[:, 0] * 255.0), 0, 255).astype(np.uint8)
    return rounded


def _record(name: str, model: nn.Module, sources: Images, attacked: NDArray[np.uint8]) -> AttackRecord:
    change = (as_input(attacked) - as_input(sources.values)).reshape(len(sources), -1)
    return AttackRecord(
        name,
        success=float((predict(model, attacked) != sources.labels).mean()),
        linf=float(np.abs(change).max(1).mean()),
        l2=float(np.linalg.norm(change, axis=1).mean()),
    )
