"""Detectors fitted once: what is tested here reads them and leaves them as they are."""

from collections.abc import Iterator

import pytest
import torch
from tests.support.samples import attacked, natural

from hydrophone.detectors.samples import SampleDetectors, fit_samples


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plain(_one_thread: None) -> SampleDetectors:
    """Fitted on natural rows alone."""
    return fit_samples([natural(1_200, 1)], embedding="late", device="cpu")


@pytest.fixture(scope="session")
def learnt(_one_thread: None) -> SampleDetectors:
    """Fitted on attacks as well."""
    return fit_samples([natural(1_200, 1)], labelled=attacked(150, 7), embedding="late", device="cpu")
