"""One thread, because small tensors gain nothing from more; no shape checks, which the unit tests have made already."""

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import config


@pytest.fixture(autouse=True, scope="module")
def _lean() -> Iterator[None]:
    """On a busy machine, threads that wait for each other cost fifty times the work; shape checks double it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
    torch.set_num_threads(threads)
