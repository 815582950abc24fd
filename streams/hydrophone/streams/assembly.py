"""Builds a processor from settings: the only place that knows how the parts fit together."""

import logging
from pathlib import Path

from hydrophone.detectors import Reference
from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.identity import FramePriorities
from hydrophone.streams import topics
from hydrophone.streams.arrivals import ArrivalTasks
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.clock import now_ms
from hydrophone.streams.evidence import EvidenceStore
from hydrophone.streams.judge import Judge, SampleRules
from hydrophone.streams.kafka import clients
from hydrophone.streams.kafka.delivery import AtLeastOnce, Delivery, ExactlyOnce
from hydrophone.streams.kafka.groups import GroupProtocol, choose_protocol, membership
from hydrophone.streams.kafka.reading import Reads
from hydrophone.streams.kafka.recovery import TableTopics
from hydrophone.streams.kafka.references import ReferenceFeed
from hydrophone.streams.kafka.shard_plans import ShardPlanFeed
from hydrophone.streams.kafka.tables import TableReader
from hydrophone.streams.merging import MergeRules
from hydrophone.streams.outputs import OutputTopics
from hydrophone.streams.ownership import Stages
from hydrophone.streams.processor import StreamRules
from hydrophone.streams.runtime import Runtime
from hydrophone.streams.settings import Settings
from hydrophone.streams.snapshots import SnapshotRules
from hydrophone.streams.telemetry import Telemetry
from hydrophone.streams.verdicts import SampleJudge
from hydrophone.streams.window_tests import LoadRule, WindowTests

__all__ = ["build_runtime"]

log = logging.getLogger("hydrophone")


def build_runtime(settings: Settings) -> Runtime:
    """Load references, connect, initialise transactions. Raises `ConfigurationError` or `BrokerUnavailable`."""
    kafka = settings.kafka_properties
    pinned = [Reference.load(folder, device=settings.device) for folder in settings.reference]
    for reference in pinned:
        _ = reference.prepared, reference.samples  # now, not in the first window
    catalog = ReferenceCatalog(pinned, device=settings.device, judges_rows=settings.verdicts != "none")
    feed = ReferenceFeed(kafka, topics.REFERENCES.full_name(settings.topic_prefix), catalog)
    shards = ShardPlanFeed(kafka, topics.CONTROL.full_name(settings.topic_prefix))
    if settings.sampling_key is None:
        log.warning("no sampling key is set: an outsider could choose ids that dodge the sample of a full window")
    telemetry = Telemetry()
    judge = Judge(
        catalog,
        topic=topics.ACTIVATIONS.full_name(settings.topic_prefix),
        sample=SampleRules(settings.k, settings.sampling_key_id),
        false_alarms_per_month=settings.false_alarms_per_month,
        window_ms=settings.window_ms,
        evidence=_evidence(settings, telemetry),
        config_sha256=settings.sha256,
        detection_rate=settings.detection_rate,
    )
    outputs = OutputTopics(settings.topic_prefix)
    delivery = _delivery(settings, kafka)
    return Runtime(
        consumer=clients.consumer(
            kafka,
            group=settings.group,
            client_id=settings.instance_id or "hydrophone",
            member=membership(_protocol(settings, kafka), settings.instance_id),
        ),
        delivery=delivery,
        tables=TableReader(kafka),
        glances=TableReader(kafka, timeout_s=1),
        references=feed,
        shards=shards,
        reads=Reads(
            topics.ACTIVATIONS.full_name(settings.topic_prefix),
            topics.PARTIALS.full_name(settings.topic_prefix),
            shards.partitions_of(topics.PARTIALS.full_name(settings.topic_prefix)),
            windows=settings.stage != "merge",
            merging=settings.stage != "windows",
        ),
        tables_of=TableTopics(
            topics.STATE.full_name(settings.topic_prefix), topics.SNAPSHOTS.full_name(settings.topic_prefix)
        ),
        outputs=outputs,
        stages=Stages(
            StreamRules(
                settings.time_rules,
                catalog.contract,
                FramePriorities(settings.sampling_key_bytes),
                settings.k,
                settings.signature_check,
                shards.plans,
            ),
            MergeRules(settings.window_ms, settings.sampling_key_bytes, settings.k),
        ),
        snapshots=SnapshotRules(
            settings.snapshots_ms, settings.k, settings.sampling_key_bytes, settings.sampling_key_id
        ),
        judge=judge,
        tests=WindowTests(
            judge,
            LoadRule(settings.k, settings.fewest_rows, settings.window_ms),
            threads=settings.test_threads,
            limit=settings.tests_under_way,
        ),
        arrivals=ArrivalTasks(
            SampleJudge(catalog, outputs, listing=settings.verdicts), threads=settings.verdict_threads
        ),
        clock=now_ms,
        telemetry=telemetry,
        group=settings.group,
    )


def _protocol(settings: Settings, kafka: dict[str, str]) -> GroupProtocol:
    if settings.group_protocol != "auto":
        return settings.group_protocol
    if settings.guarantee == "at-least-once":
        return "classic"  # for foreign brokers and the embedded one
    found = choose_protocol(kafka, settings.instance_id)
    log.info("group protocol `%s`", found)
    return found


def _delivery(settings: Settings, kafka: dict[str, str]) -> Delivery:
    if settings.guarantee == "at-least-once":
        return AtLeastOnce(kafka)
    name = clients.transactional_id(settings.group, settings.instance_id)
    return ExactlyOnce(kafka, name, is_named=settings.instance_id is not None)


def _evidence(settings: Settings, telemetry: Telemetry) -> EvidenceStore | None:
    if settings.evidence is None:
        return None
    uri = settings.evidence
    if "://" not in uri:
        folder = Path(uri).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"`evidence` folder `{folder}` cannot be made: {error}") from None
        uri = folder.as_uri()
    return EvidenceStore(uri, on_failure=lambda: telemetry.evidence_failures.add(1))
