"""Make attacks on your own torch model with the adversarial-robustness-toolbox, learn from them, judge single rows.

Run: python examples/2-verdicts-on-attacks.py     (needs `pip install adversarial-robustness-toolbox`; half a minute)

What is written to files here is what `hydrophone reference fit natural/ --labelled labelled/ --model digits --out DIR`
reads. A row keeps the `sample_id` of the input it was made from, so that attacks are held out by source.
"""

from collections.abc import Callable

import numpy as np
import torch
from art.attacks.evasion import DeepFool, FastGradientMethod, ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from sklearn.datasets import load_digits
from torch import nn

from hydrophone.detectors.samples import DECISIONS, fit_samples
from hydrophone.schemas import Frame

torch.manual_seed(0)
torch.set_num_threads(1)

# Your model and your data stand here.
digits = load_digits()
inputs = (digits.images[:, None] / 16).astype(np.float32)
labels = digits.target.astype(np.int64)
order = np.random.default_rng(0).permutation(len(inputs))
train, natural, sources, traffic = np.split(order, [700, 1500, 1580])
model = nn.Sequential(
    nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 64), nn.ReLU(), nn.Linear(64, 10)
)
optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(60):
    optimiser.zero_grad()
    loss = nn.functional.cross_entropy(model(torch.from_numpy(inputs[train])), torch.from_numpy(labels[train]))
    loss.backward()
    optimiser.step()
model.eval()


def activations(images: np.ndarray, **told: object) -> Frame:
    """In a service a tap does this: `ActivationTap(model, layers=[...], output="logits", publisher=...)`."""
    seen: dict[str, np.ndarray] = {}
    hooks: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "conv": lambda out: out.mean((2, 3)),
        "hidden": lambda out: out,
    }
    with torch.inference_mode():
        out = torch.from_numpy(images)
        for place, layer in enumerate(model):
            out = layer(out)
            if name := {0: "conv", 3: "hidden"}.get(place):
                seen[name] = hooks[name](out).numpy()
    output = out.softmax(1).numpy()
    return Frame("digits", seen, event_time_ms=np.array(0), output=output, **told)  # type: ignore[arg-type]


def accuracy(rows: np.ndarray) -> float:
    return float((activations(inputs[rows]).classes() == labels[rows]).mean())


classifier = PyTorchClassifier(
    model, loss=nn.CrossEntropyLoss(), input_shape=(1, 8, 8), nb_classes=10, clip_values=(0.0, 1.0), device_type="cpu"
)
attacks = {
    "FGSM.20": FastGradientMethod(classifier, eps=0.2),
    "PGD.20": ProjectedGradientDescentPyTorch(classifier, eps=0.2, eps_step=0.05, max_iter=5, verbose=False),
    "DeepFool": DeepFool(classifier, max_iter=10, batch_size=16, verbose=False),
}


def labelled(rows: np.ndarray) -> list[Frame]:
    """The sources as they are, label 0, and under each attack, label 1."""
    ids = [f"digit-{row}" for row in rows]
    n = len(rows)
    frames = [activations(inputs[rows], label=np.zeros(n, int), attack=[None] * n, sample_ids=ids)]
    for name, attack in attacks.items():
        made = attack.generate(inputs[rows], y=labels[rows])
        frames.append(activations(made, label=np.ones(n, int), attack=[name] * n, sample_ids=ids))
    return frames


print(f"accuracy on clean inputs: {accuracy(natural):.3f}")
detectors = fit_samples(
    [activations(inputs[natural])], labelled=labelled(sources), accuracy=accuracy(natural), device="cpu"
)
for name, area in detectors.manifest.held_out_auc.items():
    print(f"{name}: ROC-AUC {area:.3f} on sources held out")

clean, *hostile = labelled(traffic[:40])
for name, frame in zip(("clean", *attacks), (clean, *hostile), strict=True):
    verdicts = detectors.judge(frame)
    counts = ", ".join(f"{DECISIONS[d]} {(verdicts.decision == d).sum()}" for d in range(3))
    named = [guess.family for guess in verdicts.attacks if guess is not None and guess.family]
    likeliest = max(set(named), key=named.count) if named else "none"
    print(f"{name}: {counts}; family named most often: {likeliest}")
