"""How fast one window test is: against alibi-detect on the same data, against itself, against a bare matrix product.

`mmd_permutation_test` is called as a user would, on arrays, with the pooled median computed anew in every call;
alibi-detect gets its bandwidth for nothing. Both sides alternate in one run. Run with `python -m benchmarks.engine`;
the peers' environment comes from `make peers`. `--quick` needs it not: it then measures what can be measured alone.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import torch
from benchmarks.harness import HERE, Measured, interleaved, run
from numpy.typing import NDArray

from hydrophone.detectors import Reference, fit_reference, mmd_permutation_test
from hydrophone.detectors.gram import BLOCK_ROWS
from hydrophone.schemas import Frame

D: Final = 512
B: Final = 1000
THREADS: Final = 2
CLASSES: Final = 10
CALLS: Final = 5
SLOW_ROUNDS: Final = 3
"""At n = m = 1000 one call of theirs takes tens of seconds."""
PEER_PYTHON: Final = HERE.parent / ".venv-peers" / "bin" / "python"

Array = NDArray[np.float32]


class Alibi:
    """alibi-detect's detector in a process of its own; `test` is timed inside it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [PEER_PYTHON, HERE / "peers" / "alibi_mmd.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def fit(self, reference: Array, window: Array, sigma: float) -> None:
        reference_file, self._window = Path(self._folder.name) / "r.npy", Path(self._folder.name) / "w.npy"
        np.save(reference_file, reference)
        np.save(self._window, window)
        self._ask({"reference": str(reference_file), "sigma": sigma, "permutations": B})

    def test(self, seed: int) -> tuple[float, float]:
        """Seconds and p-value."""
        answer = self._ask({"window": str(self._window), "seed": seed})
        return answer["seconds"], answer["p_value"]

    def _ask(self, request: dict[str, object]) -> dict[str, float]:
        assert self._process.stdin is not None, "the peer was started with pipes"
        assert self._process.stdout is not None, "the peer was started with pipes"
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the alibi-detect process ended; run benchmarks/peers/alibi_mmd.py by hand to see why")
        return dict(json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


def rows(n: int, *, seed: int, shift: float = 0.0, d: int = D) -> Array:
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


def frame(n: int, layers: int, *, seed: int) -> Frame:
    """Rows of ten classes, the class shifting every feature."""
    predicted = np.random.default_rng(seed).integers(0, CLASSES, n)
    values = {
        f"layer{i:02d}": rows(n, seed=1000 * seed + i) + 0.1 * predicted[:, None].astype("f4") for i in range(layers)
    }
    return Frame("bench", values, event_time_ms=np.zeros(n, np.int64), predicted=predicted)


def reference(n: int, layers: int) -> Reference:
    """n rows to permute, half as many to fit on."""
    return fit_reference([frame(n * 3 // 2, layers, seed=1)], permutations=B, device="cpu", max_reference_rows=n)


def against_alibi(alibi: Alibi, ours: Callable[[], object], n: int, m: int, rounds: int) -> tuple[float, str]:
    """Median of the paired ratios theirs / ours; one call of theirs against the median of a few of ours, which are
    so short that a hiccup of the machine would decide the pair."""
    X, Y = rows(n, seed=1), rows(m, seed=2)
    alibi.fit(X, Y, sigma=22.0)
    for _ in range(3):
        ours()
    pairs = []
    for turn in range(rounds):
        mine = statistics.median(timed(ours) for _ in range(CALLS))
        pairs.append((alibi.test(turn)[0], mine))
    ratios = [theirs / mine for theirs, mine in pairs]
    theirs, mine = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    return statistics.median(ratios), f"{theirs:.0f} ms against {mine:.2f} ms, medians of {rounds}"


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def speed_rows(alibi: Alibi, rounds: int) -> Iterator[Measured]:
    for n, m in ((100, 100), (1000, 100), (1000, 1000)):
        X, Y = rows(n, seed=1), rows(m, seed=2)
        ours = partial(mmd_permutation_test, X, Y, permutations=B, device="cpu")
        turns = min(rounds, SLOW_ROUNDS) if m > 100 else rounds
        ratio, detail = against_alibi(alibi, ours, n, m, turns)
        yield Measured(f"vs-alibi-{n}-{m}", ratio, detail)
    fitted, windows = reference(1000, 1), [frame(100, 1, seed=seed) for seed in range(10, 20)]
    turn = iter(range(10**9))
    for window in windows:  # steady traffic: splits of these class counts are known
        fitted.test(window)
    ratio, detail = against_alibi(alibi, lambda: fitted.test(windows[next(turn) % len(windows)]), 1000, 100, rounds)
    yield Measured("vs-alibi-stratified-1000-100", ratio, f"{detail}; 3 bandwidths, 2 kernels")


def agreement(alibi: Alibi, data_sets: int, seeds: int) -> Measured:
    """Largest difference of p over data sets from equal to clearly different, each side's p a mean over seeds.

    One p of 1,000 permutations has a standard error of up to .016; the mean over seeds shows what is left beside it.
    """
    worst, differences = 0.0, []
    for index in range(data_sets):
        X, Y = rows(100, seed=10 + index, d=32), rows(100, seed=500 + index, d=32, shift=0.08 * index / data_sets)
        ours = [mmd_permutation_test(X, Y, permutations=B, seed=seed, device="cpu") for seed in range(seeds)]
        alibi.fit(X, Y, sigma=ours[0].bandwidths[0])
        theirs = [alibi.test(seed)[1] for seed in range(seeds)]
        mine = [result.p_value for result in ours if result.p_value is not None]
        differences.append(abs(statistics.fmean(mine) - statistics.fmean(theirs)))
    worst = max(differences)
    detail = (
        f"{data_sets} data sets, mean of {seeds} seeds a side; median difference {statistics.median(differences):.4f}"
    )
    return Measured("p-agreement", worst, detail)


def layers_ratio(rounds: int) -> Measured:
    """Sixteen layers against one, stratified, n=1000 and m=100."""
    one, sixteen = reference(1000, 1), reference(1000, 16)
    small, large = frame(100, 1, seed=7), frame(100, 16, seed=7)
    seconds = interleaved({"one": lambda: one.test(small), "sixteen": lambda: sixteen.test(large)}, rounds=rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    detail = f"{medians['sixteen'] * 1000:.0f} ms against {medians['one'] * 1000:.1f} ms, medians of {rounds}"
    return Measured("layers-16-over-1", medians["sixteen"] / medians["one"], detail)


def gemm_rate(rounds: int) -> Measured:
    """Multiply-adds of the products one whole test makes, per second of the whole test, over a bare sgemm's rate."""
    N = 2000
    X, Y = rows(N // 2, seed=1), rows(N // 2, seed=2)
    left, right = torch.randn(N, N), torch.randn(N, B + 1)
    test = partial(mmd_permutation_test, X, Y, permutations=B, device="cpu")
    seconds = interleaved({"test": test, "bare": lambda: left @ right}, rounds=rounds)
    upper = sum(min(BLOCK_ROWS, N - start) * (N - start) for start in range(0, N, BLOCK_ROWS))
    achieved = 2 * upper * (D + B + 1) / statistics.median(seconds["test"])
    bare = 2 * N * N * (B + 1) / statistics.median(seconds["bare"])
    detail = f"{achieved / 1e9:.0f} of {bare / 1e9:.0f} GFLOP/s; everything else of the test counted against it"
    return Measured("gemm-rate", achieved / bare, detail)


def measure(is_quick: bool) -> Iterator[Measured]:
    torch.set_num_threads(THREADS)
    rounds = 3 if is_quick else 9
    peer: AbstractContextManager[Alibi | None] = Alibi() if PEER_PYTHON.exists() and not is_quick else nullcontext()
    with peer as alibi:
        if alibi is None:
            print("alibi-detect is not compared with: `make peers` makes its environment", file=sys.stderr)
        else:
            yield from speed_rows(alibi, rounds)
            yield agreement(alibi, 20, 5)
    yield layers_ratio(rounds)
    yield gemm_rate(rounds)


def main() -> int:
    status = run("engine", measure)
    return 0 if "--quick" in sys.argv else status


if __name__ == "__main__":
    sys.exit(main())
