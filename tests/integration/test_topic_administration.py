"""Topics are created as declared, once; what exists is reported and never altered."""

import pytest
from deploy.broker.kraft import KraftBroker

from hydrophone.schemas.errors import ConfigurationError, TopicMissing
from hydrophone.streams.kafka.admin import create_topics, describe_topics, require_topics
from hydrophone.streams.topics import ACTIVATIONS, DAY_MS, REFERENCES, STATE, TOPICS

pytestmark = pytest.mark.broker


def test_topics_are_created_as_declared_and_a_second_time_left_alone(broker: KraftBroker, topic_prefix: str) -> None:
    kafka = {"bootstrap.servers": broker.bootstrap}

    first = create_topics(kafka, prefix=topic_prefix)
    second = create_topics(kafka, prefix=topic_prefix)

    assert [made.status for made in first] == ["created"] * len(TOPICS)
    assert [made.status for made in second] == ["existing"] * len(TOPICS)
    assert [made.partitions for made in second] == [topic.partitions for topic in TOPICS]


def test_description_is_what_the_broker_has(broker: KraftBroker, topic_prefix: str) -> None:
    kafka = {"bootstrap.servers": broker.bootstrap}
    create_topics(kafka, [ACTIVATIONS, REFERENCES], prefix=topic_prefix, partitions=3)
    activations, references = ACTIVATIONS.full_name(topic_prefix), REFERENCES.full_name(topic_prefix)

    found = require_topics(kafka, [activations, references])

    assert found[activations].partitions == 3
    assert found[activations].replication_factor == 1
    assert found[activations].configs["retention.ms"] == str(DAY_MS)
    assert found[activations].configs["message.timestamp.type"] == "LogAppendTime"
    assert found[references].configs["cleanup.policy"] == "compact"


def test_topic_with_other_partitions_is_reported_with_a_remedy_and_kept(broker: KraftBroker, topic_prefix: str) -> None:
    kafka = {"bootstrap.servers": broker.bootstrap}
    create_topics(kafka, [ACTIVATIONS], prefix=topic_prefix, partitions=3)

    activations, state = create_topics(kafka, [ACTIVATIONS, STATE], prefix=topic_prefix, partitions=4)

    assert (activations.status, activations.partitions, activations.wanted) == ("mismatched", 3, 4)
    assert "`partitions=3`" in activations.remedy
    assert (state.status, state.partitions) == ("created", 4)
    assert describe_topics(kafka, [activations.name])[activations.name].partitions == 3


def test_absent_topics_are_left_out_or_all_named(broker: KraftBroker, topic_prefix: str) -> None:
    kafka = {"bootstrap.servers": broker.bootstrap}
    names = [f"{topic_prefix}one", f"{topic_prefix}two"]

    assert describe_topics(kafka, names) == {}
    with pytest.raises(TopicMissing, match=f"`{names[0]}`, `{names[1]}`"):
        require_topics(kafka, names)


def test_more_replicas_than_brokers_is_a_fault_of_the_request(broker: KraftBroker, topic_prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="INVALID_REPLICATION_FACTOR"):
        create_topics({"bootstrap.servers": broker.bootstrap}, prefix=topic_prefix, replication_factor=3)
