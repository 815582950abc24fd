"""When a window rings: what its model remembers, which rules fire, the alert. Pure; rules are made in `budget.py`."""

from typing import Final, Literal

from hydrophone.detectors.sequential import NO_EVIDENCE, accumulate, evidence_over_time
from hydrophone.schemas.alert import Alert, FiredRule, alert_id
from hydrophone.schemas.operations import ModelState
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.budget import AlarmRules

__all__ = ["decide"]

Severity = Literal["low", "medium", "high", "critical"]

EVASION: Final = ("AML.T0015", "AML.T0043")
"""MITRE ATLAS: Evade AI Model; Craft Adversarial Data."""

REPETITION: Final = ("AML.T0040", "AML.T0043.001")
"""MITRE ATLAS: AI Model Inference API Access; Craft Adversarial Data: Black-Box Optimization, which asks often."""

LOOK_AT_SUSPECTS: Final = (
    "Look at the suspects' requests and clients first; if they do not look like your users, challenge or "
    "throttle those clients and keep the evidence. If they do, traffic has changed: refit the reference."
)
LOOK_AT_REPETITION: Final = (
    "Look at who sent the repeated rows. A retry loop or a batch job repeats innocently: mend it. Otherwise throttle "
    "those clients: repeating an input, or nearly, is how a model is probed from outside."
)


def decide(
    rules: AlarmRules, state: ModelState | None, score: WindowScore, *, shared: float
) -> tuple[ModelState | None, Alert | None]:
    """What the model remembers after this window, and the alert it raises, if any.

    `shared` is the reference's part in the p-value (`finite_reference.shared_variance`). A window counts once; a new
    reference starts a new memory. An untested window adds nothing to it, but its repeated rows ring.
    """
    if score.reference is None or (state is not None and score.window.end_ms <= state.last_end_ms):
        return state, None
    memory = _memory(state, score)
    tested = score.joint is not None
    if score.joint is not None:
        p_values = (*memory.recent_p_values, score.joint.p_value)[-rules.immediate.n :]
        M = accumulate(memory.sequential, score.joint.p_value, shared=shared)
        memory = memory.model_copy(update={"recent_p_values": p_values, "sequential": M})
    fired = _fired(rules, memory, score)
    if not tested and not fired:
        return state, None
    # Evidence that has been told is spent, by whichever rule: it would ring again, late, on the first clean window.
    spent = {"sequential": NO_EVIDENCE} if any(rule.name != "replay" for rule in fired) else {}
    alert = _alert(rules, memory, score, fired) if fired else None
    return memory.model_copy(update={"last_end_ms": score.window.end_ms, **spent}), alert


def _memory(state: ModelState | None, score: WindowScore) -> ModelState:
    """The state to go on with: this one while the reference stays, else an empty one."""
    assert score.reference is not None, "without a reference there is nothing to remember"
    if state is not None and state.reference_sha256 == score.reference.sha256:
        return state
    return ModelState(model=score.model, reference_sha256=score.reference.sha256, last_end_ms=score.window.end_ms)


def _fired(rules: AlarmRules, memory: ModelState, score: WindowScore) -> tuple[FiredRule, ...]:
    """Each rule that fires on this window, with its numbers. `memory` has this window in it."""
    fired = []
    if score.joint is not None and rules.immediate.fires(memory.recent_p_values):
        rule = rules.immediate
        fired.append(
            FiredRule(
                name="immediate",
                k=rule.k,
                n=rule.n,
                level=rule.level,
                p_values=memory.recent_p_values,
                false_alarms_per_month=rule.false_alarms_per_month,
            )
        )
    value = evidence_over_time(memory.sequential)
    if score.joint is not None and rules.sequential.fires(value):
        fired.append(
            FiredRule(
                name="sequential",
                value=value,
                threshold=rules.sequential.threshold,
                false_alarms_per_month=rules.sequential.false_alarms_per_month,
            )
        )
    if score.replay is not None and rules.replay.fires(score.replay.p_value):
        fired.append(
            FiredRule(
                name="replay",
                k=1,
                n=1,
                level=rules.replay.level,
                p_values=(score.replay.p_value,),
                false_alarms_per_month=rules.replay.false_alarms_per_month,
            )
        )
    return tuple(fired)


def _alert(rules: AlarmRules, memory: ModelState, score: WindowScore, fired: tuple[FiredRule, ...]) -> Alert:
    names = {rule.name for rule in fired}
    is_replay, is_different = "replay" in names, names != {"replay"}
    agreeing = sum(p <= rules.immediate.level for p in memory.recent_p_values)
    severity = _severity(score, lasts=agreeing > 2 or "sequential" in names) if is_different else _of_replay(score)
    what = "adversarial inputs" if is_different else "replay of inputs"
    actions = ((LOOK_AT_SUSPECTS, is_different), (LOOK_AT_REPETITION, is_replay))
    return Alert(
        id=alert_id(score.id),
        model=score.model,
        window=score.window,
        score_id=score.id,
        rules=fired,
        severity=severity,
        confidence=1.0 - min(_rarity(rule) for rule in fired),
        title=f"Suspected {what} to model {score.model}",
        p_value=score.joint.p_value if score.joint else None,
        statistic=score.joint.statistic if score.joint else None,
        rows_seen=score.counts.seen,
        branch=score.branch,
        layers=score.layers,
        suspects=score.suspects,
        clients=score.clients,
        replay=score.replay,
        atlas_techniques=(EVASION if is_different else ()) + (REPETITION if is_replay else ()),
        recommended_action=" ".join(text for text, applies in actions if applies),
        evidence=score.evidence,
    )


def _rarity(rule: FiredRule) -> float:
    """How rare this would be on a clean window: its p-value; of evidence over time, one in so many windows."""
    return rule.p_values[-1] if rule.value is None else 1 / rule.value


def _severity(score: WindowScore, *, lasts: bool) -> Severity:
    """By effect size in null deviations, and by whether it has lasted."""
    assert score.joint is not None, "only a tested window has an effect size"
    size = score.joint.statistic
    if size < 6:
        return "medium" if lasts else "low"
    if size < 15:
        return "high" if lasts else "medium"
    return "critical" if lasts else "high"


def _of_replay(score: WindowScore) -> Severity:
    """By whether copies are most of what came."""
    assert score.replay is not None, "replay fired"
    return "medium" if score.replay.rows > score.counts.tested else "low"
