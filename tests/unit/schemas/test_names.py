"""A model id is a Kafka key, a file name and a metric attribute at once."""

import pytest

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.names import check_model


@pytest.mark.parametrize("model", ["m", "7b", "resnet50@2024-01", "team/vision:v1.2_rc", "x" * 200])
def test_a_model_id_may_look_like_this(model: str) -> None:
    assert check_model(model) == model


@pytest.mark.parametrize(
    "model", ["", " m", "m ", "m\n", "a b", "m#0", "/m", ".m", "é", "\u0661", "x" * 201, None, 7, b"m"]
)
def test_a_model_id_may_not_look_like_this(model: object) -> None:
    with pytest.raises(FrameInvalid) as caught:
        check_model(model)
    assert caught.value.reason == "bad_model"
