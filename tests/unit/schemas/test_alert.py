"""One score, one alert: the id says so."""

import pytest
from pydantic import ValidationError
from tests.support.events import ALERT, SCORE

from hydrophone.schemas.alert import Alert, FiredRule, alert_id
from hydrophone.schemas.event import event_id


def test_the_id_follows_from_the_score_alone() -> None:
    assert alert_id(SCORE.id) == alert_id(SCORE.id) == ALERT.id
    assert alert_id(SCORE.id) != alert_id(event_id("another score"))


def test_an_alert_without_a_rule_that_fired_is_none() -> None:
    with pytest.raises(ValidationError, match="rules"):
        Alert.model_validate(ALERT.model_dump() | {"rules": ()})


@pytest.mark.parametrize(
    ("rule", "missing"),
    [
        ({"name": "sequential", "value": 9.0}, "threshold"),
        ({"name": "immediate", "k": 1, "n": 1, "level": 0.1}, "p_values"),
        ({"name": "replay", "p_values": [0.1]}, "k, n, level"),
    ],
)
def test_a_rule_says_the_numbers_it_fired_by(rule: dict[str, object], missing: str) -> None:
    with pytest.raises(ValidationError, match=f"got no {missing}"):
        FiredRule.model_validate(rule | {"false_alarms_per_month": 0.1})
