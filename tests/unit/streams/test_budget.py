"""Every rule stays within its share, all together within the budget, whatever windows and permutations there are.

The immediate rule's rate is computed here a second time, by listing every pattern of small and large p-values and, for
the rules in use, by simulating clean windows.
"""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrophone.streams.budget import MONTH_MS, SHARES, AlarmRule, alarm_rule, alarm_rules
from hydrophone.streams.doctor import _alarms
from hydrophone.streams.settings import Settings

DAY_MS = 24 * 3_600_000


def ring_rate(rule: AlarmRule) -> float:
    """P(a clean window rings): over all patterns of `small` among this window and the n − 1 before it."""
    total = 0.0
    for pattern in product((True, False), repeat=rule.n):
        if pattern[-1] and sum(pattern) >= rule.k:
            total += rule.level ** sum(pattern) * (1 - rule.level) ** (rule.n - sum(pattern))
    return total


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


@given(st.floats(0.01, 1e6), st.integers(100, 7 * DAY_MS), st.sampled_from([99, 999, 9_999]))
def test_rules_together_cost_no_more_than_the_budget(budget: float, window_ms: int, permutations: int) -> None:
    rules = alarm_rules(false_alarms_per_month=budget, window_ms=window_ms, permutations=permutations)

    costs = {name: getattr(rules, name).false_alarms_per_month for name in SHARES}
    assert costs["sequential"] <= SHARES["sequential"] * budget * (1 + 1e-9)
    assert costs["replay"] <= SHARES["replay"] * budget * (1 + 1e-9)
    assert rules.is_within_budget == (costs["immediate"] <= SHARES["immediate"] * budget)
    assert rules.false_alarms_per_month == pytest.approx(sum(costs.values()))
    assert rules.false_alarms_per_month <= budget * (1 + 1e-9) or not rules.is_within_budget


def test_shares_are_the_whole_budget() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)


def test_thresholds_of_one_alarm_a_month_at_windows_of_a_minute() -> None:
    rules = alarm_rules(false_alarms_per_month=1, window_ms=60_000, permutations=999)

    windows = 30 * 24 * 60
    assert (rules.immediate.k, rules.immediate.n, rules.immediate.level) == (2, 3, 0.002)
    assert rules.sequential.threshold == pytest.approx(windows / 0.45)
    assert rules.replay.level == pytest.approx(0.1 / windows)


def test_budget_of_more_than_one_alarm_a_window_rings_every_window() -> None:
    rules = alarm_rules(false_alarms_per_month=1e6, window_ms=DAY_MS, permutations=99)
    assert (rules.sequential.threshold, rules.replay.level, rules.immediate.level) == (1, 1, 1)


def test_each_rule_says_its_share_and_its_threshold() -> None:
    rules = alarm_rules(false_alarms_per_month=1, window_ms=60_000, permutations=999)
    immediate, sequential, replay = rules.lines().values()
    assert ("45%" in immediate, "2 of 3 windows at p <= 0.002" in immediate) == (True, True)
    assert ("45%" in sequential, ">= 96000" in sequential) == (True, True)
    assert ("10%" in replay, "p <= 2.3e-06" in replay) == (True, True)


def test_doctor_tells_every_rule_and_warns_of_the_one_that_costs_more_than_its_share() -> None:
    well = list(_alarms(Settings(), 999, assumed=False))
    ill = list(_alarms(Settings(false_alarms_per_month=1e-9, window_ms=1_000), 19, assumed=False))

    assert [finding.what for finding in well] == [f"{name} alarm" for name in SHARES] + ["class mix"]
    assert {finding.state for finding in well} == {"ok"}
    assert [finding.state for finding in ill] == ["warning", "ok", "ok", "ok"]
    assert "--permutations" in ill[0].remedy
