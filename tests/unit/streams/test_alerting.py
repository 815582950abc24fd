"""What a model remembers from window to window, which rules fire, and what the alert says of them."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.events import SCORE

from hydrophone.detectors.sequential import NO_EVIDENCE, accumulate, evidence_over_time
from hydrophone.schemas.alert import Alert
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.operations import ModelState
from hydrophone.schemas.score import Joint, PriorShift, ReferenceId, Replay, WindowScore
from hydrophone.streams.alerting import decide
from hydrophone.streams.budget import AlarmRule, AlarmRules, ReplayRule, SequentialRule

IMMEDIATE = AlarmRule(2, 3, 0.01, 0.4)
RULES = AlarmRules(1.0, IMMEDIATE, SequentialRule(1e9, 0.4), ReplayRule(0.001, 0.1))
"""No evidence here reaches the sequential rule's threshold."""

SOON = AlarmRules(1.0, AlarmRule(1, 1, 0.0, 0.0), SequentialRule(20.0, 0.4), ReplayRule(0.001, 0.1))
"""No p-value here reaches the immediate rule's level."""

P_VALUES = st.none() | st.integers(1, 1_000).map(lambda j: j / 1_000)
WINDOWS = st.lists(st.tuples(P_VALUES, st.none() | st.sampled_from([1e-6, 0.5]), st.sampled_from("aab")), max_size=30)


def score(end: int, p_value: float | None, *, replay: float | None = None, sha256: str = "a" * 64) -> WindowScore:
    changes: dict[str, Any] = {
        "window": WindowBounds(start_ms=end - 1, end_ms=end),
        "reference": ReferenceId(version="v", sha256=sha256),
        "joint": None if p_value is None else Joint(p_value=p_value, statistic=3.0, e_value=1.0),
        "status": "not_tested" if p_value is None else "tested",
        "replay": None if replay is None else Replay(rows=30, p_value=replay, groups=()),
    }
    if p_value is None:
        changes |= {"reason": "too_few_distinct_rows", "counts": SCORE.counts.model_copy(update={"tested": 0})}
    return SCORE.model_copy(update=changes)


def run(
    scores: list[WindowScore], state: ModelState | None = None, rules: AlarmRules = SOON
) -> tuple[list[Alert], ModelState | None]:
    alerts = []
    for window in scores:
        state, alert = decide(rules, state, window, shared=0.03)
        if alert is not None:
            alerts.append(alert)
    return alerts, state


def ends(p_values: list[float | None], rules: AlarmRules = RULES) -> tuple[list[int], ModelState | None]:
    """The ends of the windows that rang, 1 being the first window's."""
    alerts, state = run([score(end, p_value) for end, p_value in enumerate(p_values, 1)], rules=rules)
    return [alert.window.end_ms for alert in alerts], state


def stream(windows: list[tuple[float | None, float | None, str]]) -> list[WindowScore]:
    return [
        score(end, p_value, replay=replay, sha256=letter * 64)
        for end, (p_value, replay, letter) in enumerate(windows, 1)
    ]


def test_rule_rings_when_k_of_the_last_n_agree_and_this_one_among_them() -> None:
    #   p      .5   .01  .5   .01   .5   .5   .01   .01   .5
    #   rings                  ✓                     ✓
    rang, _ = ends([0.5, 0.01, 0.5, 0.01, 0.5, 0.5, 0.01, 0.01, 0.5])
    assert rang == [4, 8]


def test_untested_window_leaves_the_memory_as_it_is() -> None:
    rang, state = ends([0.01, None, None, None, 0.01])
    assert rang == [5]
    assert state is not None
    assert state.recent_p_values == (0.01, 0.01)


def test_new_reference_starts_a_new_memory() -> None:
    state, _ = decide(RULES, None, score(1, 0.01), shared=0.0)
    state, alert = decide(RULES, state, score(2, 0.01, sha256="b" * 64), shared=0.0)

    assert alert is None
    assert state is not None
    assert (state.reference_sha256, state.recent_p_values) == ("b" * 64, (0.01,))


def test_replayed_window_counts_once() -> None:
    state, _ = decide(RULES, None, score(5, 0.01), shared=0.0)
    again, alert = decide(RULES, state, score(5, 0.01), shared=0.0)
    older, none = decide(RULES, state, score(4, 0.01), shared=0.0)

    assert again == older == state
    assert alert is none is None


def test_memory_is_no_longer_than_the_rule() -> None:
    _, state = ends([0.5] * 10)
    assert state is not None
    assert len(state.recent_p_values) == IMMEDIATE.n


def test_alert_names_score_rule_and_window_and_has_the_same_id_again() -> None:
    def ring() -> Alert:
        state, _ = decide(RULES, None, score(1, 0.01), shared=0.0)
        _, alert = decide(RULES, state, score(2, 0.01), shared=0.0)
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
    state, alert = None, None
    for end in range(1, agreeing + 1):
        window = score(end, 0.01)
        assert window.joint is not None
        joint = window.joint.model_copy(update={"statistic": float(statistic)})
        state, alert = decide(RULES, state, window.model_copy(update={"joint": joint}), shared=0.0)

    assert alert is not None
    assert alert.severity == severity


def test_sequential_rule_rings_once_evidence_has_gathered_and_begins_again() -> None:
    """No window is below the level of 0; p = 0.05 again and again is enough over time."""
    rang, state = ends([0.05] * 40, SOON)

    assert len(rang) >= 2
    gaps = {later - earlier for earlier, later in pairwise([0, *rang])}
    assert len(gaps) == 1, "after each ring it starts from nothing"
    assert gaps.pop() > 2
    assert state is not None
    assert 0 <= evidence_over_time(state.sequential) < SOON.sequential.threshold


def test_sequential_alert_says_how_much_evidence_there_was_and_how_much_it_took() -> None:
    alerts, _ = run([score(end, 0.02) for end in range(1, 20)])

    (rule,) = alerts[0].rules
    M = NO_EVIDENCE
    for _ in range(alerts[0].window.end_ms):
        M = accumulate(M, 0.02, shared=0.03)
    assert (rule.name, rule.threshold, rule.k, rule.level) == ("sequential", 20.0, None, None)
    assert rule.value == pytest.approx(evidence_over_time(M))
    assert alerts[0].confidence == pytest.approx(1 - 1 / evidence_over_time(M))


def test_clean_windows_hardly_move_it() -> None:
    rang, state = ends([0.9, 0.4, 0.6, 0.3] * 50, SOON)
    assert rang == []
    assert state is not None
    assert evidence_over_time(state.sequential) < 5


def test_replay_rings_where_the_window_itself_is_as_usual() -> None:
    (alert,), state = run([score(1, 0.5, replay=1e-6), score(2, 0.5, replay=0.4)])

    (rule,) = alert.rules
    assert (rule.name, rule.level, rule.p_values) == ("replay", 0.001, (1e-6,))
    assert alert.replay is not None
    assert (alert.p_value, alert.severity, alert.replay.rows) == (0.5, "low", 30)
    assert "replay" in alert.title
    assert state is not None
    assert state.recent_p_values == (0.5,)


def test_replay_rings_where_it_left_too_little_to_test_and_adds_nothing_to_the_memory() -> None:
    _, before = run([score(1, 0.02)])
    (alert,), after = run([score(2, None, replay=1e-6)], before)

    assert (alert.p_value, alert.statistic, alert.severity) == (None, None, "medium")
    assert alert.confidence == pytest.approx(1 - 1e-6)
    assert before is not None
    assert after == before.model_copy(update={"last_end_ms": 2})
    assert run([score(2, None, replay=1e-6)], after) == ([], after)


def test_replay_without_a_reference_rings_nothing() -> None:
    window = score(1, None, replay=1e-6).model_copy(update={"reference": None})
    assert decide(SOON, None, window, shared=0.0) == (None, None)


def test_alert_carries_every_rule_that_fired_and_the_advice_for_each() -> None:
    rules = AlarmRules(1.0, IMMEDIATE, SequentialRule(5.0, 0.4), ReplayRule(0.001, 0.1))
    _, state = run([score(1, 0.01)], rules=RULES)
    (alert,), _ = run([score(2, 0.01, replay=1e-6)], state, rules)

    assert [rule.name for rule in alert.rules] == ["immediate", "sequential", "replay"]
    assert "adversarial" in alert.title
    assert "suspects" in alert.recommended_action
    assert "repeat" in alert.recommended_action
    assert Alert.model_validate_json(alert.model_dump_json()) == alert


def test_prior_shift_raises_no_alert() -> None:
    shift = PriorShift(p_value=1e-9, statistic=99.0, shares={"0": (0.9, 0.1)})
    window = score(1, 0.5).model_copy(update={"prior_shift": shift})
    assert run([window], rules=RULES)[0] == []


@given(WINDOWS)
def test_same_windows_again_change_nothing(windows: list[tuple[float | None, float | None, str]]) -> None:
    scores = stream(windows)
    _, state = run(scores)
    assert run(scores, state) == ([], state)


@given(WINDOWS, st.integers(0, 30))
def test_restart_from_the_encoded_state_goes_on_alike(
    windows: list[tuple[float | None, float | None, str]], cut: int
) -> None:
    scores = stream(windows)
    first, state = run(scores[:cut])
    read = None if state is None else ModelState.model_validate_json(state.model_dump_json())
    second, last = run(scores[cut:], read)

    assert (first + second, last) == run(scores)


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(1, 1e300))
def test_evidence_in_the_state_is_always_finite_and_below_the_threshold(
    p_values: list[float], threshold: float
) -> None:
    rules = AlarmRules(1.0, IMMEDIATE, SequentialRule(threshold, 0.4), ReplayRule(0.001, 0.1))
    _, state = ends(list(p_values), rules)
    assert (
        state is None
        or evidence_over_time(ModelState.model_validate_json(state.model_dump_json()).sequential) < threshold
    )


def test_state_of_a_processor_without_evidence_over_time_still_reads() -> None:
    text = '{"model": "mnist/cnn", "reference_sha256": "%s", "last_end_ms": 5, "recent_p_values": [0.5]}' % ("a" * 64)
    state = ModelState.model_validate_json(text)
    assert state.sequential == ()
    _, state_after = run([score(6, 0.02)], state)
    assert state_after is not None
    assert state_after.sequential == accumulate(NO_EVIDENCE, 0.02, shared=0.03)


def test_new_reference_starts_with_no_evidence_but_knows_what_was_counted() -> None:
    _, state = run([score(3, 0.02)])
    assert run([score(2, 0.02, sha256="b" * 64)], state) == ([], state)

    _, after = run([score(4, 0.02, sha256="b" * 64)], state)
    assert after is not None
    assert after.sequential == accumulate(NO_EVIDENCE, 0.02, shared=0.03)
