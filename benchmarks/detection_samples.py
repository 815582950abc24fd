"""Who: whether single rows of a partly hostile window are told apart, and how many of the rows named are clean."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from benchmarks.detection_effort import Effort, seeded
from benchmarks.fashion_pools import Pools
from benchmarks.harness import Measured
from benchmarks.windows import contaminated
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from hydrophone.detectors import Reference, WindowResult
from hydrophone.detectors.suspicion import FALSE_DISCOVERIES, named_rows

__all__ = ["sample_rows"]

ATTACKS: Final = ("FGSM.12", "PGD.12", "DeepFool", "PGD.03")
ROWS: Final = 500
SHARE: Final = 0.10


def sample_rows(models: Sequence[Pools], references: Sequence[Reference], effort: Effort) -> Iterator[Measured]:
    """Means over windows and models, by attack."""
    windows = max(effort.power_windows // 3, 1)
    aucs: dict[str, list[float]] = {}
    false: dict[str, list[float]] = {}
    caught: dict[str, list[float]] = {}
    for pools, reference in zip(models, references, strict=True):
        for name in (attack for attack in ATTACKS if attack in pools.attacks):
            for index in range(windows):
                window = contaminated(pools, pools.attacks[name], ROWS, SHARE, seeded(pools.seed, ROWS, index))
                result = reference.test(window)
                hostile, fooled = _truth(pools, name, result)
                p_values = np.array(result.row_p_values)
                if fooled.any():
                    kept = ~hostile | fooled
                    aucs.setdefault(name, []).append(float(roc_auc_score(hostile[kept], -p_values[kept])))
                named = named_rows(p_values) & result.rejected
                false.setdefault(name, []).append(float((named & ~hostile).sum() / max(named.sum(), 1)))
                caught.setdefault(name, []).append(float(named[hostile].mean()))
    detail = f"windows of {ROWS}, {SHARE:.0%} hostile, {windows} a model and attack"
    yield Measured(
        "suspects-fdr-excess",
        max(map(statistics.fmean, false.values())) - FALSE_DISCOVERIES,
        f"the worst of {_means(false)}, less {FALSE_DISCOVERIES:.0%}; named of the hostile {_means(caught)}; {detail}",
    )
    yield Measured("sample-auc", min(map(statistics.fmean, aucs.values())), f"the worst of {_means(aucs)}; {detail}")


def _truth(pools: Pools, attack: str, result: WindowResult) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tested rows are hostile, and which of them changed the model's answer."""
    frame_id, changed = pools.attacks[attack].frame_id, pools.fooled(attack)
    hostile = np.array([origin.frame_id == frame_id for origin in result.origins])
    fooled = np.array([origin.frame_id == frame_id and changed[origin.row] for origin in result.origins])
    return hostile, fooled


def _means(by_attack: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {statistics.fmean(values):.3f}" for name, values in by_attack.items())
