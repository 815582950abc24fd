"""When a window rings: one budget of false alarms a month, turned into a rule on p-values. Pure; no topic lives here.

A single window can only be rare to 1 / (B + 1). Where the budget asks for rarer, several windows must agree: the rule
rings when this window and at least k − 1 of the n − 1 before it have p <= level. On clean, exchangeable windows

    P(ring) <= level · P(Bin(n − 1, level) >= k − 1),

and the rule found is the first (k, n), and the largest level on the grid 1/(B+1), 2/(B+1), ..., that stays within it.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from scipy.stats import binom

from hydrophone.schemas.alert import Alert, FiredRule, alert_id
from hydrophone.schemas.operations import ModelState
from hydrophone.schemas.score import WindowScore

__all__ = ["MONTH_MS", "AlarmRule", "alarm_rule", "decide"]

MONTH_MS: Final = 30 * 24 * 3_600_000
ATLAS_TECHNIQUES: Final = ("AML.T0015", "AML.T0043")
"""MITRE ATLAS: Evade AI Model; Craft Adversarial Data."""

SHAPES: Final = ((1, 1), (2, 3), (2, 2), (3, 5), (3, 4), (3, 3), (4, 6), (4, 4), (5, 5))
"""(k, n) tried in this order: fewest agreeing windows first, then the wider choice among them."""


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """Ring when at least `k` of the last `n` windows, this one among them, have p <= `level`."""

    k: int
    n: int
    level: float
    false_alarms_per_month: float

    def fires(self, p_values: tuple[float, ...]) -> bool:
        """`p_values` end with this window's."""
        recent = p_values[-self.n :]
        return recent[-1] <= self.level and sum(p <= self.level for p in recent) >= self.k


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


def decide(rule: AlarmRule, state: ModelState | None, score: WindowScore) -> tuple[ModelState | None, Alert | None]:
    """What the model remembers after this window, and the alert it raises, if any.

    An untested window leaves the memory alone; a new reference starts a new one; a window already counted counts once.
    """
    if score.joint is None or score.reference is None:
        return state, None
    if state is None or state.reference_sha256 != score.reference.sha256:
        state = ModelState(model=score.model, reference_sha256=score.reference.sha256, last_end_ms=-1)
    if score.window.end_ms <= state.last_end_ms:
        return state, None
    p_values = (*state.recent_p_values, score.joint.p_value)[-rule.n :]
    state = state.model_copy(update={"last_end_ms": score.window.end_ms, "recent_p_values": p_values})
    return state, _alert(rule, p_values, score) if rule.fires(p_values) else None


def _alert(rule: AlarmRule, p_values: tuple[float, ...], score: WindowScore) -> Alert:
    assert score.joint is not None, "only a tested window raises an alert"
    severity = _severity(score, sum(p <= rule.level for p in p_values))
    fired = FiredRule(
        name="immediate",
        k=rule.k,
        n=rule.n,
        level=rule.level,
        p_values=p_values,
        false_alarms_per_month=rule.false_alarms_per_month,
    )
    return Alert(
        id=alert_id(score.id),
        model=score.model,
        window=score.window,
        score_id=score.id,
        rules=(fired,),
        severity=severity,
        confidence=1.0 - score.joint.p_value,
        title=f"Suspected adversarial inputs to model {score.model}",
        p_value=score.joint.p_value,
        statistic=score.joint.statistic,
        rows_seen=score.counts.seen,
        branch=score.branch,
        layers=score.layers,
        suspects=score.suspects,
        atlas_techniques=ATLAS_TECHNIQUES,
        recommended_action=(
            "Look at the suspects' requests and clients first; if they do not look like your users, challenge or "
            "throttle those clients and keep the evidence. If they do, traffic has changed: refit the reference."
        ),
        evidence=score.evidence,
    )


def _severity(score: WindowScore, agreeing: int) -> Literal["low", "medium", "high", "critical"]:
    """By effect size in null deviations, and by how long it has lasted."""
    assert score.joint is not None, "only a tested window has a severity"
    size = score.joint.statistic
    if size < 6:
        return "medium" if agreeing > 2 else "low"
    if size < 15:
        return "high" if agreeing > 2 else "medium"
    return "critical" if agreeing > 2 else "high"
