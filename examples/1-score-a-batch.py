"""Is this batch different from clean traffic? No broker, no files: fit a reference, test two windows.

Run: python examples/1-score-a-batch.py
"""

import numpy as np

from hydrophone.detectors import fit_reference
from hydrophone.schemas import Frame

rng = np.random.default_rng(0)


def batch(rows: int, hostile: int = 0) -> Frame:
    """Activations of one layer for some requests; the last `hostile` of them were pushed off their class."""
    predicted = rng.integers(0, 3, rows)
    activations = rng.standard_normal((rows, 32)) + predicted[:, None]
    activations[rows - hostile :] += 1.5 * rng.standard_normal((hostile, 32))
    return Frame(
        "example",
        {"penultimate": activations.astype(np.float32)},
        event_time_ms=np.arange(rows),
        predicted=predicted,
        sample_ids=[f"request-{row}" for row in range(rows)],
    )


reference = fit_reference([batch(1500)])
for name, window in (("clean", batch(200)), ("attacked", batch(200, hostile=60))):
    result = reference.test(window)
    print(f"{name}: p = {result.p_value:.3f}, rejected: {result.rejected}")
    if result.rejected:
        print("  suspects:", ", ".join(str(suspect.sample_id) for suspect in result.suspects[:5]))
