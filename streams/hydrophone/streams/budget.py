"""What a budget of false alarms a month amounts to: one rule for each way to ring. Pure; no window is judged here.

Every rule has a share, and on clean windows rings at most that often on average, so that together they stay within the
budget. The class mix has none: it is told in the score and raises no alert.

A single window can only be rare to 1 / (B + 1). Where the immediate rule's share asks for rarer, several windows must
agree: it rings when this one and at least k − 1 of the n − 1 before it have p <= level. On clean, exchangeable windows

    P(ring) <= level · P(Bin(n − 1, level) >= k − 1),

and the rule found is the first (k, n), and the largest level on the grid 1/(B+1), 2/(B+1), ..., that stays within it.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from scipy.stats import binom

__all__ = [
    "MONTH_MS",
    "SHARES",
    "USUAL_PERMUTATIONS",
    "AlarmRule",
    "AlarmRules",
    "ReplayRule",
    "SequentialRule",
    "alarm_rule",
    "alarm_rules",
]

MONTH_MS: Final = 30 * 24 * 3_600_000

USUAL_PERMUTATIONS: Final = 999
"""Of a reference nobody has fitted yet."""

SHARES: Final = {"immediate": 0.45, "sequential": 0.45, "replay": 0.1}
"""Replay needs least: its p-value falls far below any level with a few copies, the others' cannot."""

SHAPES: Final = ((1, 1), (2, 3), (2, 2), (3, 5), (3, 4), (3, 3), (4, 6), (4, 4), (5, 5))
"""(k, n) tried in this order: fewest agreeing windows first, then the wider choice among them."""


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """The immediate rule: ring when at least `k` of the last `n` windows, this one among them, have p <= `level`."""

    k: int
    n: int
    level: float
    false_alarms_per_month: float

    def fires(self, p_values: tuple[float, ...]) -> bool:
        """`p_values` end with this window's."""
        recent = p_values[-self.n :]
        return recent[-1] <= self.level and sum(p <= self.level for p in recent) >= self.k


@dataclass(frozen=True, slots=True)
class SequentialRule:
    """Ring when evidence since the last ring reaches `threshold`: the mean run length of clean windows, at least."""

    threshold: float
    false_alarms_per_month: float

    def fires(self, evidence: float) -> bool:
        return evidence >= self.threshold


@dataclass(frozen=True, slots=True)
class ReplayRule:
    """Ring when so many repeated rows have a p-value of at most `level`."""

    level: float
    false_alarms_per_month: float

    def fires(self, p_value: float) -> bool:
        return p_value <= self.level


@dataclass(frozen=True, slots=True)
class AlarmRules:
    """The rules in force, and the budget they were made from."""

    budget: float
    immediate: AlarmRule
    sequential: SequentialRule
    replay: ReplayRule

    @property
    def false_alarms_per_month(self) -> float:
        """Of all rules together. More than the budget only where no immediate rule is as rare as its share asks."""
        return sum(rule.false_alarms_per_month for rule in (self.immediate, self.sequential, self.replay))

    @property
    def is_within_budget(self) -> bool:
        return self.immediate.false_alarms_per_month <= SHARES["immediate"] * self.budget

    def lines(self) -> dict[str, str]:
        """Each rule in a sentence, by its name: its share, when it rings, what it costs."""
        now, over, replay = self.immediate, self.sequential, self.replay
        rings = {
            "immediate": (now.false_alarms_per_month, f"{now.k} of {now.n} windows at p <= {now.level:.2g}"),
            "sequential": (
                over.false_alarms_per_month,
                f"evidence over time >= {over.threshold:.6g}, on clean traffic once in as many windows",
            ),
            "replay": (replay.false_alarms_per_month, f"one window whose repeated rows have p <= {replay.level:.2g}"),
        }
        return {
            name: f"{SHARES[name]:.0%} of the budget: {when}; at most {cost:.2g} of {self.budget:g} a month"
            for name, (cost, when) in rings.items()
        }


@lru_cache(maxsize=64)
def alarm_rules(*, false_alarms_per_month: float, window_ms: int, permutations: int) -> AlarmRules:
    """The budget split over the rules. A share of more than one false alarm a window is one a window."""
    windows = MONTH_MS / window_ms
    rates = {name: min(1.0, share * false_alarms_per_month / windows) for name, share in SHARES.items()}
    return AlarmRules(
        false_alarms_per_month,
        alarm_rule(
            false_alarms_per_month=SHARES["immediate"] * false_alarms_per_month,
            window_ms=window_ms,
            permutations=permutations,
        ),
        SequentialRule(1 / rates["sequential"], windows * rates["sequential"]),
        ReplayRule(rates["replay"], windows * rates["replay"]),
    )


@lru_cache(maxsize=64)
def alarm_rule(*, false_alarms_per_month: float, window_ms: int, permutations: int) -> AlarmRule:
    """The rule that spends the budget. Within 1e-12 of nothing it can always be spent: the last shape is kept."""
    windows = MONTH_MS / window_ms
    budget = false_alarms_per_month / windows
    for k, n in SHAPES:
        grid = _largest_on_grid(k, n, budget, permutations)
        if grid:
            level = grid / (permutations + 1)
            return AlarmRule(k, n, level, windows * _ring_probability(k, n, level))
    k = n = 6
    level = 1 / (permutations + 1)
    return AlarmRule(k, n, level, windows * _ring_probability(k, n, level))


def _ring_probability(k: int, n: int, level: float) -> float:
    return level * float(binom.sf(k - 2, n - 1, level)) if k > 1 else level


def _largest_on_grid(k: int, n: int, budget: float, permutations: int) -> int:
    """The largest j with P(ring) at level j / (B + 1) within budget; 0 when even j = 1 is not."""
    low, high = 0, permutations + 1
    while low < high:
        middle = math.ceil((low + high) / 2)
        if _ring_probability(k, n, middle / (permutations + 1)) <= budget:
            low = middle
        else:
            high = middle - 1
    return low
