"""A window of 16 layers, n=1000, m=100, D=512, B=1000 on a GPU: time once warm, and p against the CPU's.

Writes `benchmarks/results/engine-gpu.json`. Needs a CUDA device, and says so. Run: `python -m benchmarks.engine_gpu`.
"""

import json
import statistics
import sys
import time
from typing import Final

import torch
from benchmarks.engine import B, frame
from benchmarks.harness import RESULTS

from hydrophone.detectors import fit_reference

LAYERS: Final = 16
ROUNDS: Final = 200
WINDOWS: Final = 10
GOAL_MS: Final = 2.0


def main() -> int:
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured", file=sys.stderr)
        return 1
    train = frame(1500, LAYERS, seed=1)
    on = {d: fit_reference([train], permutations=B, device=d, max_reference_rows=1000) for d in ("cpu", "cuda")}
    windows = [frame(100, LAYERS, seed=seed) for seed in range(10, 10 + WINDOWS)]
    p_values = {device: [fitted.test(window).p_value or 0.0 for window in windows] for device, fitted in on.items()}
    apart = max(abs(a - b) for a, b in zip(p_values["cpu"], p_values["cuda"], strict=True))
    times = []
    for turn in range(ROUNDS):
        start = time.perf_counter()
        on["cuda"].test(windows[turn % WINDOWS])
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1000)
    median_ms = statistics.median(times)
    found = {
        "device": torch.cuda.get_device_name(),
        "median_ms": median_ms,
        "goal_ms": GOAL_MS,
        "p_apart": apart,
        "reached": median_ms <= GOAL_MS and apart <= 2 / (B + 1),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "engine-gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
