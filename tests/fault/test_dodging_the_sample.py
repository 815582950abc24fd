"""Who chooses ids, but not the sampling key, cannot choose what is sampled.

An attacker searches for frame ids whose rows a full window would leave out, under every key that is not the
deployment's. Under the deployment's own key those rows are sampled as often as any others: the share stays within the
99.9 % band of the binomial law and the priorities pass a test of uniformity at 0.1 %. Under the attacker's key the same
search succeeds, so the test can fail.
"""

import hashlib
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from hydrophone.schemas.identity import FramePriorities

FRAMES: Final = 40
ROWS: Final = 25
TRIED: Final = 8_000
CONFIDENCE: Final = 0.999
SECRET, GUESS = (hashlib.blake2b(text, digest_size=64).digest() for text in (b"the deployment's", b"the attacker's"))


@pytest.fixture(scope="module")
def chosen() -> list[str]:
    """The ids, of `TRIED`, whose rows have the largest priorities under the attacker's key: they dodge there."""
    priorities = FramePriorities(GUESS)
    names = [hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest() for number in range(TRIED)]
    return sorted(names, key=lambda name: -float(priorities(name, ROWS).min()))[:FRAMES]


def test_chosen_ids_dodge_only_under_the_key_they_were_chosen_for(chosen: list[str]) -> None:
    #   honest rows 0 0 0 0 ...    chosen rows ! ! ! ...    k smallest of all: how many are !
    share = FRAMES * ROWS / (2 * FRAMES * ROWS)
    k = 500
    low, high = stats.binom.interval(CONFIDENCE, k, share)  # wider than the hypergeometric law that holds

    assert low <= _sampled(chosen, SECRET, k) <= high
    assert _sampled(chosen, GUESS, k) < low, "under a known key the search would succeed"


def test_priorities_of_chosen_ids_are_uniform_under_an_unknown_key(chosen: list[str]) -> None:
    assert stats.kstest(_uniform(chosen, SECRET), "uniform").pvalue > 1 - CONFIDENCE
    assert stats.kstest(_uniform(chosen, GUESS), "uniform").pvalue < 1 - CONFIDENCE


def _sampled(chosen: list[str], key: bytes, k: int) -> int:
    """How many of the k rows with the smallest priorities are of chosen frames, beside as many honest ones."""
    honest = [hashlib.blake2b(f"honest {number}".encode(), digest_size=16).hexdigest() for number in range(FRAMES)]
    drawn = np.concatenate([_uniform(chosen, key), _uniform(honest, key)])
    return int((np.argsort(drawn)[:k] < FRAMES * ROWS).sum())


def _uniform(names: list[str], key: bytes) -> NDArray[np.float64]:
    priorities = FramePriorities(key)
    return np.concatenate([priorities(name, ROWS).astype(np.float64) / 2.0**64 for name in names])
