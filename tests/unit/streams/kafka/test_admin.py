"""Faults of administration that need no broker; the rest is in `tests/integration/test_topic_administration.py`."""

import pytest

from hydrophone.schemas.errors import BrokerUnavailable, ConfigurationError
from hydrophone.streams.kafka.admin import create_topics, describe_topics

NOBODY = "127.0.0.1:1"


def test_silent_broker_is_unavailable_and_named() -> None:
    quiet = {"bootstrap.servers": NOBODY, "log_level": 0}

    with pytest.raises(BrokerUnavailable, match=NOBODY):
        describe_topics(quiet, ["any"], timeout_s=0.2)


def test_unknown_client_property_is_a_fault_of_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"no\.such\.property"):
        create_topics({"bootstrap.servers": NOBODY, "no.such.property": "x"})
