"""One real Apache Kafka broker (KRaft mode) as a child process: the judge of every exactly-once claim.

For tests, benchmarks and trying things out on one machine; it listens on the loopback address only. Standard
library only, so that it runs before anything is installed. Topics and clients do not live here; the broker that asks
who is there is in `secure.py`.

    python deploy/broker/kraft.py start
"""

import argparse
import base64
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

HERE: Final = Path(__file__).resolve().parent
POM: Final = HERE / "pom.xml"
LOG_CONFIG: Final = HERE / "log4j2.properties"

HOST: Final = "127.0.0.1"
NODE_ID: Final = 1
CLUSTER_ID: Final = base64.urlsafe_b64encode(b"hydrophone-local").decode().rstrip("=")
"""Kafka wants sixteen bytes in this alphabet. A constant one serves: no two of these brokers ever form a cluster."""

PORTS: Final = range(20_000, 32_768)
"""Below the range from which Linux lends ports to outgoing connections: while a killed broker is down, no reconnecting
client can be lent the broker's own port and so block its restart."""

POLL_S: Final = 0.05


class BrokerError(RuntimeError):
    """The broker cannot be started or stopped as asked; the message ends with what it logged last."""


# What is needed


def java() -> Path | None:
    """The Java program that `JAVA_HOME`, or else the path, names."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    return Path(found) if found else None


def kafka_version() -> str:
    """The version that `pom.xml` pins."""
    found = re.search(r"<kafka\.version>([^<]+)<", POM.read_text(encoding="utf-8"))
    assert found, f"`{POM}` must pin `kafka.version`"
    return found[1]


def jars_dir() -> Path:
    """Where `pom.xml` has the jars of its Kafka version copied."""
    return HERE / "target" / f"jars-{kafka_version()}"


def jars() -> tuple[Path, ...]:
    """The jars that Maven copied; empty when they are absent."""
    return tuple(sorted(jars_dir().glob("*.jar")))


def missing() -> tuple[str, ...]:
    """What stands in the way of a broker, each with its remedy; empty when nothing does."""
    faults = []
    if java() is None:
        faults.append("`java` was not found: install a Java runtime, version 17 or later, or set `JAVA_HOME`")
    if not jars():
        remedy = f"run `python {__file__} fetch` (needs Maven)"
        faults.append(f"the jars of Kafka {kafka_version()} are not in `{jars_dir()}`: {remedy}")
    return tuple(faults)


def can_fetch() -> bool:
    """Whether `fetch_jars` has the tools it needs; a network it cannot promise."""
    return java() is not None and shutil.which("mvn") is not None


def fetch_jars() -> Path:
    """Have Maven copy the jars. Safe to run twice at a time: the folder appears whole or not at all."""
    target = jars_dir()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="staging-", dir=target.parent))
    command = ["mvn", "-q", "-B", "-f", str(POM), f"-Djars.directory={staging}", "package"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BrokerError(f"Maven could not copy the jars:\n{(done.stdout + done.stderr)[-4000:]}")
        staging.chmod(0o755)
        if not jars():
            with contextlib.suppress(OSError):  # another run was quicker: a full folder is not replaced
                staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


# The broker


class KraftBroker:
    """A broker of our own, from `start()` to `stop()`; as a context manager it is up inside the block.

    Ports and folder are fixed when the object is made and survive `restart()`. The broker does not outlive this
    process, however that ends, and its folder is removed by `stop()` unless the caller named one.
    A child made by `os.fork` without `exec` keeps it alive; do not start one in a process pool's parent.
    """

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        *,
        directory: Path | None = None,
        port: int | None = None,
        heap_mb: int = 512,
        ready_timeout_s: float = 60.0,
    ) -> None:
        own_name = f"hydrophone-broker-{uuid.uuid4().hex[:12]}"
        self.directory = (directory or Path(tempfile.gettempdir()) / own_name).resolve()
        self.data_dir = self.directory / "data"
        self.log_path = self.directory / "broker.log"
        self._is_temporary = directory is None
        self._port, controller_port = _free_ports(port)
        self.bootstrap = f"{HOST}:{self._port}"
        self._properties = server_properties(self._port, controller_port, self.data_dir) | dict(overrides or {})
        self._format_options: tuple[str, ...] = ()
        self._heap_mb = heap_mb
        self._ready_timeout_s = ready_timeout_s
        self._guard: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def pid(self) -> int:
        """Process id of the Java process started last."""
        return self._pid

    @property
    def is_running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def start(self) -> None:
        """Return once the broker answers requests and counts itself among the live ones."""
        if self.is_running:
            return
        if faults := missing():
            raise BrokerError("; ".join(faults))
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._format()
            self._launch()
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut down in order, by force after 20 seconds, and remove the folder if it is a temporary one."""
        self._terminate()
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End the broker at once, as a power cut would end it (what it wrote, the kernel still has)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Shut down if up, then start again on the same ports and data."""
        self._terminate()
        self.start()

    def suspend(self) -> None:
        """Freeze the broker: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _format(self) -> None:
        config = self.directory / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in self._properties.items()), encoding="utf-8")
        if (self.data_dir / "meta.properties").exists():
            return
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config", str(config)]
        tool += self._format_options
        done = subprocess.run(self._java("-XX:TieredStopAtLevel=1", *tool), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BrokerError(f"the storage folder could not be formatted:\n{done.stdout}{done.stderr}")

    def _launch(self) -> None:
        """Start Java under a guard, a small process that ends it when the pipe to this one breaks.

        Linux can signal a child at its parent's death, but means the death of the *thread* that started it.
        """
        broker = self._java("kafka.Kafka", str(self.directory / "server.properties"))
        remove = [str(self.directory)] if self._is_temporary else []
        guard = [sys.executable, "-I", str(Path(__file__).resolve()), "guard", *remove, "--", *broker]
        with self.log_path.open("ab") as log:
            self._guard = subprocess.Popen(
                guard, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert self._guard.stdout is not None, "stdout was asked for as a pipe"
        self._pid = int(self._guard.stdout.readline() or 0)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self._ready_timeout_s
        while self.is_running and time.monotonic() < deadline:
            if _serves(self._port):
                return
            time.sleep(POLL_S)
        how = f"did not answer within {self._ready_timeout_s:g} s" if self.is_running else "ended while starting"
        raise BrokerError(f"the broker {how}; it logged last:\n{_tail(self.log_path)}")

    def _java(self, *arguments: str) -> list[str]:
        program = java()
        assert program is not None, "`missing()` is asked before anything is started"
        return [
            str(program),
            f"-Xmx{self._heap_mb}m",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",  # no file outside our folder
            f"-Djava.io.tmpdir={self.directory}",  # compression libraries unpack themselves there and leave it behind
            "-Djava.net.preferIPv4Stack=true",
            f"-Dlog4j2.configurationFile={LOG_CONFIG.as_uri()}",
            "-cp",
            os.pathsep.join(map(str, jars())),
            *arguments,
        ]

    def _signal(self, number: signal.Signals) -> None:
        if not self.is_running:
            raise BrokerError(f"the broker is not running, so it cannot be sent {number.name}")
        os.kill(self._pid, number)

    def _terminate(self) -> None:
        if self.is_running:
            self.resume()  # a frozen process would not see the request to end
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        """Return only when Java is gone: the guard waits for it and follows."""
        if self._guard is None:
            return
        if self.is_running:
            self._signal(number)
        try:
            self._guard.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._guard.wait()
        for pipe in (self._guard.stdin, self._guard.stdout):
            assert pipe is not None, "both were asked for as pipes"
            pipe.close()
        self._guard = None


def server_properties(port: int, controller_port: int, data_dir: Path) -> dict[str, str]:
    """Settings of a single node that is quick to start and quick to notice what has died."""
    return {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data_dir),
        "broker.session.timeout.ms": "3000",  # a killed node is refused until its old session has ended
        "broker.heartbeat.interval.ms": "500",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.coordinator.rebalance.protocols": "classic,consumer",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "10000",
        "group.consumer.min.heartbeat.interval.ms": "300",
        "group.consumer.heartbeat.interval.ms": "1000",
        "transaction.max.timeout.ms": "900000",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),  # the default takes a quarter of the heap
    }


def _free_ports(port: int | None) -> tuple[int, int]:
    """The port asked for, or a free one, and another free one for the controller."""
    free = free_ports(without=port)
    return (port or next(free), next(free))


def free_ports(*, without: int | None = None) -> Iterator[int]:
    """Ports nobody listens on now, each once, in no order."""
    return (candidate for candidate in random.sample(PORTS, len(PORTS)) if candidate != without and _is_free(candidate))


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _serves(port: int) -> bool:
    """Whether a Metadata request (version 1, no topics) is answered with this node among the live brokers.

    The port opens earlier than that: a broker that the controller still fences answers, but leads no partition.
    """
    client_id = b"kraft.py"
    request = struct.pack(f">hhih{len(client_id)}si", 3, 1, 7, len(client_id), client_id, 0)
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection, connection.makefile("rb") as answer:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", answer.read(4))
            correlation, live, node = struct.unpack(">iii", answer.read(size)[:12])
    except (OSError, struct.error):
        return False
    return (correlation, live, node) == (7, 1, NODE_ID)


def _tail(path: Path, size: int = 4000) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-size:] if path.exists() else "(nothing)"


# The guard


def guard(command: Sequence[str], directory: Path | None) -> int:
    """Run `command`, print its process id, and end it when standard input closes: the process that asked is gone.

    Then `directory` is removed as well, since nobody else is left to do it.
    """
    broker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)
    print(broker.pid, flush=True)
    is_orphaned = threading.Event()

    def watch() -> None:
        os.read(0, 1)  # not `sys.stdin`: its lock, held by a waiting thread, would break the interpreter's exit
        is_orphaned.set()
        broker.kill()

    threading.Thread(target=watch, daemon=True).start()
    code = broker.wait()
    if is_orphaned.is_set() and directory is not None:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if code == 0 else 1


# The command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kraft.py",
        description="One Apache Kafka broker on this machine, for tests and for trying things out. Needs Java 17.",
        epilog="exit codes: 0 fine, 2 usage, 3 something is missing, 4 the broker failed",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    start = verbs.add_parser("start", help="start a broker, print its address, stop it at Ctrl-C")
    start.add_argument("--port", type=int, help="port to listen on (default: a free one)")
    start.add_argument("--directory", type=Path, help="keep data and log here (default: a temporary folder, removed)")
    start.add_argument("--heap-mb", type=int, default=512, help="Java heap in MB (default: 512)")
    start.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a line for server.properties; repeatable"
    )
    verbs.add_parser("fetch", help="have Maven copy the jars")
    verbs.add_parser("check", help="say what is missing, and how to get it")
    return parser


def _start(arguments: argparse.Namespace) -> int:
    overrides = dict(line.split("=", 1) for line in arguments.set)
    broker = KraftBroker(overrides, directory=arguments.directory, port=arguments.port, heap_mb=arguments.heap_mb)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with broker:
            print(broker.bootstrap, flush=True)
            print(f"log: {broker.log_path}\nCtrl-C stops the broker", file=sys.stderr, flush=True)
            while broker.is_running:
                time.sleep(POLL_S)
            raise BrokerError(f"the broker ended by itself; it logged last:\n{_tail(broker.log_path)}")
    except KeyboardInterrupt:
        return 0


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["guard"]:
        split = arguments.index("--")
        return guard(arguments[split + 1 :], Path(arguments[1]) if split == 2 else None)
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.verb == "fetch" or (parsed.verb == "start" and not jars() and can_fetch()):
            print(f"Kafka {kafka_version()}: {fetch_jars()}", file=sys.stderr)
        if faults := missing():
            print("\n".join(faults), file=sys.stderr)
            return 3
        return _start(parsed) if parsed.verb == "start" else 0
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
