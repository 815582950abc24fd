"""More severe is more, in every form; surer is no less."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hydrophone.schemas.siem.example import EXAMPLE
from hydrophone.schemas.siem.levels import LEVELS, confidence_of, risk_of

INCIDENT = EXAMPLE.incident
RANKS = st.integers(0, len(LEVELS) - 1)
SURE = st.floats(0, 1)


def test_a_higher_severity_is_higher_everywhere() -> None:
    for lower, higher in pairwise(LEVELS.values()):
        assert lower.ocsf_id + 1 == higher.ocsf_id
        assert lower.rank + 1 == higher.rank
        assert lower.cef < higher.cef
        assert lower.syslog > higher.syslog, "syslog counts down"
        assert lower.risk[1] + 1 == higher.risk[0]
    assert max(level.ocsf_id for level in LEVELS.values()) == 5, "never Fatal"


@given(RANKS, RANKS, SURE, SURE)
def test_risk_goes_by_severity_then_by_confidence(rank: int, other_rank: int, sure: float, other_sure: float) -> None:
    (low_rank, low), (high_rank, high) = sorted([(rank, sure), (other_rank, other_sure)])
    risks = [
        risk_of(INCIDENT.model_copy(update={"severity": list(LEVELS)[place], "confidence": confidence}))
        for place, confidence in [(low_rank, low), (high_rank, high)]
    ]
    assert 0 <= risks[0] <= risks[1] <= 100


def test_confidence_has_three_names() -> None:
    named = {sure: confidence_of(INCIDENT.model_copy(update={"confidence": sure})) for sure in (0.0, 0.9, 0.99, 1.0)}
    assert [level.ocsf_id for level in named.values()] == [1, 2, 3, 3]
