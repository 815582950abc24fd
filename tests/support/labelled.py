"""Labelled frames whose truth is plain: three classes, an attack far off, one near by, and rows that are merely odd."""

from dataclasses import replace
from typing import Final

import numpy as np
from tests.support.frames import frame_id

from hydrophone.detectors import Reference, fit_reference
from hydrophone.detectors.samples import fit_samples
from hydrophone.schemas.frame import Frame, concat

__all__ = ["MODEL", "judging", "labelled", "natural_frame"]

MODEL: Final = "three"
CLASSES: Final = 3
WIDTHS: Final = {"early": 6, "late": 10}


def natural_frame(rows: int, seed: int, *, late: float = 0.0, early: float = 0.0) -> Frame:
    """Rows around a centre for each class; `late` and `early` move all features of a layer."""
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, CLASSES, rows)
    layers = {}
    for name, width in WIDTHS.items():
        centres = 3 * np.random.default_rng(width).standard_normal((CLASSES, width))
        moved = {"late": late, "early": early}[name]
        layers[name] = (centres[predicted] + rng.standard_normal((rows, width)) + moved).astype(np.float32)
    logits = 5 * np.eye(CLASSES)[predicted] + rng.standard_normal((rows, CLASSES))
    output = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Frame(
        MODEL,
        layers,
        event_time_ms=np.array(0),
        frame_id=frame_id(f"labelled {seed}"),
        output=output.astype(np.float32),
        predicted=predicted,
    )


def judging(seed: int = 0) -> Reference:
    small = fit_reference([natural_frame(300, seed)], permutations=99, device="cpu")
    return small.with_samples(fit_samples([natural_frame(1_600, seed + 1)], embedding="late", device="cpu"))


def labelled(seed: int = 50, *, rows: int = 200) -> Frame:
    """`far` and `near` are attacks, `odd` is a source that is not one; ids name the source."""
    parts = [
        (natural_frame(2 * rows, seed), 0, None),
        (natural_frame(rows, seed + 1, late=3.0), 1, "far"),
        (natural_frame(rows, seed + 2, late=1.0), 1, "near"),
        (natural_frame(rows, seed + 3, early=6.0), 2, "odd"),
    ]
    frames = [
        replace(
            frame,
            label=np.full(len(frame), label),
            attack=[name] * len(frame),
            sample_ids=[f"{name}/{row}" for row in range(len(frame))],
        )
        for frame, label, name in parts
    ]
    return concat(frames)
