"""Frames for detectors of single rows: three classes, two layers, an output and MC-dropout measures."""

from typing import Any

import numpy as np

from hydrophone.schemas.frame import Frame

__all__ = ["MODEL", "attacked", "natural"]

MODEL = "classifier"
CLASSES = 3
WIDTHS = {"early": 8, "late": 20}


def natural(rows: int, seed: int, *, shift: float = 0.0, doubt: float = 0.0, **parts: Any) -> Frame:
    """Rows whose layers lie `shift` off their class, of a model that is unsure by `doubt`."""
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, CLASSES, rows)
    logits = np.eye(CLASSES)[predicted] * (4.0 - doubt) + rng.normal(size=(rows, CLASSES)) * 0.3
    output = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    layers = {
        name: (np.eye(width)[predicted] * 3 + shift + rng.normal(size=(rows, width))).astype(np.float32)
        for name, width in WIDTHS.items()
    }
    entropy = -(output * np.log(output)).sum(1)
    measures = {
        "variance": rng.gamma(2.0, 0.01 * (1 + doubt), rows),
        "entropy": entropy,
        "mutual_information": entropy * rng.uniform(0.1, 0.3, rows),
        "confidence": output.max(1),
    }
    wanted: dict[str, Any] = {
        "event_time_ms": np.arange(rows),
        "output": output.astype(np.float32),
        "uncertainty": measures,
    }
    return Frame(parts.pop("model", MODEL), layers, **(wanted | parts))


def attacked(rows: int, seed: int) -> list[Frame]:
    """Two attacks and the unattacked inputs they were made of; a sample id is an input's."""
    ids = [f"input-{row}" for row in range(rows)]

    def labelled(label: int, name: str | None, **how: float) -> Frame:
        told = {"label": np.full(rows, label), "attack": [name] * rows, "sample_ids": ids}
        return natural(rows, seed + label + len(name or ""), **how, **told)

    return [
        labelled(0, None),
        labelled(1, "FGSM.12", shift=0.6, doubt=1.0),
        labelled(1, "DeepFool", shift=-0.3, doubt=3.0),
        labelled(2, None, shift=0.1),
    ]
