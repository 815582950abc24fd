"""The topic table holds what the design promises, and its arithmetic is right."""

import re

import pytest

from hydrophone.schemas.errors import SettingsError
from hydrophone.streams.topics import (
    ACTIVATIONS,
    ALERTS,
    DAY_MS,
    DEADLETTER,
    LATE,
    REFERENCES,
    STATE,
    TOPICS,
    UNLIMITED_MS,
    Topic,
    minimum_retention_ms,
    retention_fault,
    topic_configs,
    with_partitions,
)

WINDOW_MS, LATENESS_MS = 60_000, 10_000


def test_full_name_is_prefix_name_and_contract_version() -> None:
    assert ACTIVATIONS.full_name() == "hydrophone.activations.v1"
    assert ALERTS.full_name("acme.") == "acme.alerts.v1"


def test_names_are_unique_and_legal_in_kafka() -> None:
    names = [topic.full_name() for topic in TOPICS]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9.]{1,249}", name) for name in names)


def test_state_has_as_many_partitions_as_activations_whatever_that_is() -> None:
    assert STATE.partitions == ACTIVATIONS.partitions
    by_name = {topic.name: topic.partitions for topic in with_partitions(TOPICS, 48)}

    assert by_name["state"] == by_name["activations"] == 48
    assert by_name["alerts"] == ALERTS.partitions


def test_partitions_below_one_are_refused() -> None:
    with pytest.raises(SettingsError, match="`partitions` must be at least 1; got 0"):
        with_partitions(TOPICS, 0)


def test_activations_carry_the_brokers_own_time_and_a_day_of_history() -> None:
    configs = topic_configs(ACTIVATIONS)

    assert configs["message.timestamp.type"] == "LogAppendTime"
    assert configs["retention.ms"] == str(DAY_MS)
    assert configs["cleanup.policy"] == "delete"


@pytest.mark.parametrize("topic", [REFERENCES, STATE], ids=lambda topic: topic.name)
def test_compacted_topics_are_never_cut_by_age(topic: Topic) -> None:
    configs = topic_configs(topic)

    assert configs["cleanup.policy"] == "compact"
    assert "retention.ms" not in configs


@pytest.mark.parametrize("topic", [LATE, DEADLETTER], ids=lambda topic: topic.name)
def test_record_handed_on_whole_fits_with_its_headers(topic: Topic) -> None:
    assert int(topic_configs(topic)["max.message.bytes"]) > int(topic_configs(ACTIVATIONS)["max.message.bytes"])


@pytest.mark.parametrize(("replication_factor", "expected"), [(1, None), (2, None), (3, "2"), (5, "2")])
def test_writes_need_two_replicas_from_three_on(replication_factor: int, expected: str | None) -> None:
    assert topic_configs(ALERTS, replication_factor=replication_factor).get("min.insync.replicas") == expected


def test_retention_leaves_room_for_three_windows_with_their_lateness() -> None:
    #   |-- window --|- late -|-- window --|- late -|-- window --|- late -|
    minimum_ms = minimum_retention_ms(WINDOW_MS, LATENESS_MS)

    assert minimum_ms == 210_000
    assert retention_fault(minimum_ms, window_ms=WINDOW_MS, lateness_ms=LATENESS_MS) is None
    fault = retention_fault(minimum_ms - 1, window_ms=WINDOW_MS, lateness_ms=LATENESS_MS)
    assert fault is not None
    assert "210000 ms; got 209999 ms" in fault


def test_retention_without_end_is_long_enough() -> None:
    assert retention_fault(UNLIMITED_MS, window_ms=WINDOW_MS, lateness_ms=LATENESS_MS) is None
