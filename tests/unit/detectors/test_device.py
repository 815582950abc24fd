"""Where the arithmetic runs."""

import pytest
import torch

from hydrophone.detectors.device import device_name, resolve_device
from hydrophone.schemas.errors import ConfigurationError


def test_auto_is_cuda_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_device_is_named_for_people() -> None:
    assert device_name(resolve_device("cpu")) == "cpu"


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x"])
def test_a_device_nobody_knows_is_named(device: str) -> None:
    with pytest.raises(ConfigurationError, match="`device`"):
        resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="sees no CUDA device"):
        resolve_device("cuda")
