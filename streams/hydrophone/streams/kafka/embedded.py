"""A broker inside this process, so that the demo and the quick tests need neither Java nor a download.

It is librdkafka's own mock cluster, reached by `ctypes` because the Python client does not expose it. The real broker
of the integration tests lives in `deploy/broker/`.
"""

import ctypes
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from confluent_kafka import cimpl

from hydrophone.schemas.errors import BrokerUnavailable

__all__ = ["EmbeddedBroker"]

PRODUCER: Final = 0
"""`RD_KAFKA_PRODUCER`: the kind of client handle that carries the cluster; it sends nothing."""

LOG_LEVEL: Final = "3"
"""Errors only: the handle that carries the cluster would warn that it has no address to connect to."""


class EmbeddedBroker:
    """At-least-once only, and in memory only: good for a demo, never the judge of exactly-once.

    A transaction's offset commit is accepted and dropped, an aborted record is delivered even to a `read_committed`
    reader, and a second producer with the same transactional id does not fence the first.
    A partition keeps its newest 5 MiB or 100,000 messages; older ones vanish unread. Nothing is compacted.
    A topic that `topics` does not name is created at its first use, with 4 partitions; the admin client's requests
    (create, describe) go unanswered. Listens on the loopback address only, and ends with this process.
    """

    def __init__(self, topics: Mapping[str, int] | None = None, *, brokers: int = 1) -> None:
        """Name in `topics` the partitions of those that must have another number than 4."""
        self._topics = dict(topics or {})
        self._brokers = brokers
        self._library: ctypes.CDLL | None = None
        self._client: int = 0
        self._cluster: int = 0
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """`host:port`, for `bootstrap.servers` of any client in any process on this machine; empty unless started."""
        return self._bootstrap

    def start(self) -> None:
        if self._library is not None:
            return
        library = _library()
        error = ctypes.create_string_buffer(512)
        settings = library.rd_kafka_conf_new()
        library.rd_kafka_conf_set(settings, b"log_level", LOG_LEVEL.encode(), error, len(error))
        self._client = library.rd_kafka_new(PRODUCER, settings, error, len(error))
        if not self._client:
            raise BrokerUnavailable(f"the embedded broker cannot start: {error.value.decode(errors='replace')}")
        self._cluster = library.rd_kafka_mock_cluster_new(self._client, self._brokers)
        if not self._cluster:
            library.rd_kafka_destroy(self._client)
            raise BrokerUnavailable("the embedded broker cannot start: librdkafka refused to open its mock cluster")
        self._library = library
        self._bootstrap = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        # A real broker waits three seconds for more members before it assigns partitions to a new group; so does this.
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        for name, partitions in self._topics.items():
            self.create_topic(name, partitions)

    def create_topic(self, name: str, partitions: int) -> None:
        """Raise `BrokerUnavailable` when the topic exists already, be it by first use."""
        if self._library is None:
            raise BrokerUnavailable(f"`{name}` cannot be created: the embedded broker is not started")
        code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if code != 0:
            raise BrokerUnavailable(f"`{name}` cannot be created with {partitions} partitions: librdkafka error {code}")

    def stop(self) -> None:
        """Everything written is gone; clients that are still connected keep trying to reconnect."""
        if self._library is None:
            return
        library, self._library, self._bootstrap = self._library, None, ""
        library.rd_kafka_mock_cluster_destroy(self._cluster)
        library.rd_kafka_destroy(self._client)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _library() -> ctypes.CDLL:
    """The librdkafka that the Python client itself is linked to, whatever its file is called.

    A symbol is looked up in a library and then in those it depends on, so the client's extension module will do.
    """
    library = ctypes.CDLL(cimpl.__file__)
    handle, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: Mapping[str, tuple[type | None, tuple[type, ...]]] = {
        "rd_kafka_conf_new": (handle, ()),
        "rd_kafka_conf_set": (number, (handle, text, text, text, ctypes.c_size_t)),
        "rd_kafka_new": (handle, (number, handle, text, ctypes.c_size_t)),
        "rd_kafka_destroy": (None, (handle,)),
        "rd_kafka_mock_cluster_new": (handle, (handle, number)),
        "rd_kafka_mock_cluster_destroy": (None, (handle,)),
        "rd_kafka_mock_cluster_bootstraps": (text, (handle,)),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (handle, ctypes.c_int32)),
        "rd_kafka_mock_topic_create": (number, (handle, text, number, number)),
    }
    for name, (result, arguments) in signatures.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise BrokerUnavailable(
                f"the embedded broker needs `{name}`, which this librdkafka lacks: install confluent-kafka from its "
                "wheel, or use `python deploy/broker/kraft.py start`"
            ) from error
        function.restype, function.argtypes = result, arguments
    return library
