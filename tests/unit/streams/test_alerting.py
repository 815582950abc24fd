"""The alarm rule stays within the budget of false alarms, whatever window length and permutations give it to work with.

The rate is computed here a second time, by listing every pattern of small and large p-values and, for the rules in use,
by simulating clean windows.
"""

from itertools import product
from typing import Any

import numpy as np
import pytest
from tests.support.events import SCORE

from hydrophone.schemas.alert import Alert
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.operations import ModelState
from hydrophone.schemas.score import Joint, ReferenceId, WindowScore
from hydrophone.streams.alerting import MONTH_MS, AlarmRule, alarm_rule, decide

DAY_MS = 24 * 3_600_000
RULE = AlarmRule(2, 3, 0.01, 1.0)


def ring_rate(rule: AlarmRule) -> float:
    """P(a clean window rings): over all patterns of `small` among this window and the n − 1 before it."""
    total = 0.0
    for pattern in product((True, False), repeat=rule.n):
        if pattern[-1] and sum(pattern) >= rule.k:
            total += rule.level ** sum(pattern) * (1 - rule.level) ** (rule.n - sum(pattern))
    return total


def score(end: int, p_value: float | None, *, sha256: str = "a" * 64) -> WindowScore:
    changes: dict[str, Any] = {
        "window": WindowBounds(start_ms=end - 1, end_ms=end),
        "reference": ReferenceId(version="v", sha256=sha256),
        "joint": None if p_value is None else Joint(p_value=p_value, statistic=3.0, e_value=1.0),
        "status": "not_tested" if p_value is None else "tested",
    }
    return SCORE.model_copy(update=changes)


def run(p_values: list[float | None], rule: AlarmRule = RULE) -> tuple[list[int], ModelState | None]:
    """The ends of the windows that rang, 1 being the first window's."""
    state, rang = None, []
    for end, p_value in enumerate(p_values, 1):
        state, alert = decide(rule, state, score(end, p_value))
        if alert is not None:
            rang.append(end)
    return rang, state


@pytest.mark.parametrize("permutations", [99, 199, 499, 999, 9_999])
@pytest.mark.parametrize("window_ms", [1_000, 10_000, 60_000, 300_000, 3_600_000, DAY_MS])
@pytest.mark.parametrize("budget", [0.1, 1.0, 4.0, 30.0])
def test_rule_spends_at_most_the_budget(budget: float, window_ms: int, permutations: int) -> None:
    rule = alarm_rule(false_alarms_per_month=budget, window_ms=window_ms, permutations=permutations)

    rate = MONTH_MS / window_ms * ring_rate(rule)

    assert rate == pytest.approx(rule.false_alarms_per_month, rel=1e-9)
    assert rate <= budget * (1 + 1e-9)
    steps = rule.level * (permutations + 1)
    assert steps == pytest.approx(round(steps)), "a p-value is a multiple of 1 / (B + 1)"
    assert steps > 0.5
    assert 1 <= rule.k <= rule.n


def test_rule_is_the_largest_level_that_fits() -> None:
    rule = alarm_rule(false_alarms_per_month=1, window_ms=3_600_000, permutations=999)
    larger = AlarmRule(rule.k, rule.n, rule.level + 1 / 1_000, 0.0)

    assert (rule.k, rule.n) == (1, 1)
    assert rule.level == pytest.approx(1 / 1_000)
    assert ring_rate(larger) * MONTH_MS / 3_600_000 > 1


def test_rate_on_simulated_clean_windows_is_the_one_promised() -> None:
    rule = alarm_rule(false_alarms_per_month=2_000, window_ms=60_000, permutations=99)
    rng = np.random.default_rng(1)
    small = rng.integers(1, 101, 200_000) / 100 <= rule.level
    counts = np.convolve(small, np.ones(rule.n, int), "full")[: len(small)]
    rang = small & (counts >= rule.k)

    promised = rule.false_alarms_per_month / (MONTH_MS / 60_000)

    # Overlapping windows are dependent: four deviations of as many independent ones, doubled.
    assert abs(rang.mean() - promised) < 8 * np.sqrt(promised / len(small))


def test_impossible_budget_takes_the_strictest_rule_and_says_what_it_costs() -> None:
    rule = alarm_rule(false_alarms_per_month=1e-9, window_ms=1_000, permutations=19)

    assert (rule.k, rule.n, rule.level) == (6, 6, 1 / 20)
    assert rule.false_alarms_per_month == pytest.approx(MONTH_MS / 1_000 * ring_rate(rule))
    assert rule.false_alarms_per_month > 1e-9


def test_rule_rings_when_k_of_the_last_n_agree_and_this_one_among_them() -> None:
    #   p      .5   .01  .5   .01   .5   .5   .01   .01   .5
    #   rings                  ✓                     ✓
    rang, _ = run([0.5, 0.01, 0.5, 0.01, 0.5, 0.5, 0.01, 0.01, 0.5])
    assert rang == [4, 8]


def test_untested_window_leaves_the_memory_as_it_is() -> None:
    rang, state = run([0.01, None, None, None, 0.01])
    assert rang == [5]
    assert state is not None
    assert state.recent_p_values == (0.01, 0.01)


def test_new_reference_starts_a_new_memory() -> None:
    state, _ = decide(RULE, None, score(1, 0.01))
    state, alert = decide(RULE, state, score(2, 0.01, sha256="b" * 64))

    assert alert is None
    assert state is not None
    assert (state.reference_sha256, state.recent_p_values) == ("b" * 64, (0.01,))


def test_replayed_window_counts_once() -> None:
    state, _ = decide(RULE, None, score(5, 0.01))
    again, alert = decide(RULE, state, score(5, 0.01))
    older, none = decide(RULE, state, score(4, 0.01))

    assert again == older == state
    assert alert is none is None


def test_memory_is_no_longer_than_the_rule() -> None:
    _, state = run([0.5] * 10)
    assert state is not None
    assert len(state.recent_p_values) == RULE.n


def test_alert_names_score_rule_and_window_and_has_the_same_id_again() -> None:
    def ring() -> Alert:
        state, _ = decide(RULE, None, score(1, 0.01))
        _, alert = decide(RULE, state, score(2, 0.01))
        assert alert is not None
        return alert

    first, second = ring(), ring()

    assert first == second
    assert (first.score_id, first.model, first.window.end_ms) == (SCORE.id, SCORE.model, 2)
    (rule,) = first.rules
    assert (rule.k, rule.n, rule.level, rule.p_values) == (2, 3, 0.01, (0.01, 0.01))
    assert "uspected" in first.title


@pytest.mark.parametrize(
    ("statistic", "agreeing", "severity"),
    [(3, 2, "low"), (3, 3, "medium"), (10, 2, "medium"), (10, 3, "high"), (20, 2, "high"), (20, 3, "critical")],
)
def test_severity_grows_with_size_and_duration(statistic: float, agreeing: int, severity: str) -> None:
    rule, state, alert = AlarmRule(2, 3, 0.01, 1.0), None, None
    for end in range(1, agreeing + 1):
        window = score(end, 0.01)
        assert window.joint is not None
        joint = window.joint.model_copy(update={"statistic": float(statistic)})
        state, alert = decide(rule, state, window.model_copy(update={"joint": joint}))

    assert alert is not None
    assert alert.severity == severity
