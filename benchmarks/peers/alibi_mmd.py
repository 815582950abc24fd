"""Runs alibi-detect's `MMDDrift` on request, in the environment that pins its old numpy.

Speaks JSON lines on standard input and output: `{"reference": FILE, "sigma": S, "permutations": B}` fits,
`{"window": FILE, "seed": S}` tests and answers `{"seconds": ..., "p_value": ...}`. Arrays are `.npy` files.
"""

import json
import sys
import time

import numpy as np
import torch
from alibi_detect.cd import MMDDrift


def main() -> None:
    torch.set_num_threads(2)
    answers = sys.stdout
    sys.stdout = sys.stderr  # the library prints
    detector = None
    for line in sys.stdin:
        request = json.loads(line)
        if "reference" in request:
            detector = MMDDrift(
                np.load(request["reference"]),
                backend="pytorch",
                sigma=np.array([request["sigma"]], np.float32),
                n_permutations=request["permutations"],
                device="cpu",
            )
            answer: dict[str, float] = {}
        else:
            assert detector is not None, "a reference comes before a window"
            window = np.load(request["window"])
            torch.manual_seed(request["seed"])
            start = time.perf_counter()
            found = detector.predict(window)
            answer = {"seconds": time.perf_counter() - start, "p_value": float(found["data"]["p_val"])}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
