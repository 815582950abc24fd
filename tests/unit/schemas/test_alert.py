"""One score, one alert: the id says so."""

import pytest
from pydantic import ValidationError
from tests.support.events import ALERT, SCORE

from hydrophone.schemas.alert import Alert, alert_id
from hydrophone.schemas.event import event_id


def test_the_id_follows_from_the_score_alone() -> None:
    assert alert_id(SCORE.id) == alert_id(SCORE.id) == ALERT.id
    assert alert_id(SCORE.id) != alert_id(event_id("another score"))


def test_an_alert_without_a_rule_that_fired_is_none() -> None:
    with pytest.raises(ValidationError, match="rules"):
        Alert.model_validate(ALERT.model_dump() | {"rules": ()})
