"""With exactly its role's ACLs a processor works, over SASL_SSL and over mTLS; with one fewer it ends and says why.

A real broker that lets in nobody without a name. The publisher signs, the processor wants signatures. Wrong passwords,
foreign authorities, expired certificates: exit code 3, the remedy in the message, no secret in anything printed.
"""

import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from deploy.broker.certificates import Authority
from deploy.broker.secure import SecureBroker
from tests.support.broker import read_all, require_kraft
from tests.support.processor import (
    await_until,
    cli,
    frame_at,
    make_topics,
    scores_of,
    small_reference,
    start,
)
from tests.support.secure import granted, scram_environment

from hydrophone.schemas.headers import dead_letter_from_headers
from hydrophone.schemas.signature import SigningKey
from hydrophone.streams.acls import Acl, acls
from hydrophone.streams.clock import now_ms
from hydrophone.streams.kafka.admin import describe_topics
from hydrophone.streams.publisher import Publisher
from hydrophone.streams.security import Security, librdkafka
from hydrophone.streams.topics import ACTIVATIONS, DEADLETTER

pytestmark = pytest.mark.broker

MODEL = "guarded"
PASSWORD = "canary-of-the-processor"
PUBLISHERS = "canary-of-the-publisher"
KEY = SigningKey("2026-11", b"canary-that-signs-frames")
SIGNED = {
    "HYDROPHONE_SIGNATURES": "require",
    "HYDROPHONE_SIGNING_KEYS": json.dumps({KEY.key_id: KEY.secret.decode(), "2026-10": "canary-that-is-rotated-out"}),
}
PROCESSOR, PUBLISHER = "User:processor", "User:publisher"


@pytest.fixture(scope="module")
def guarded() -> Iterator[SecureBroker]:
    require_kraft()
    with SecureBroker({"processor": PASSWORD, "publisher": PUBLISHERS}) as running:
        yield running


def scram_security(broker: SecureBroker, user: str, password: str) -> dict[str, object]:
    return {
        "protocol": "SASL_SSL",
        "mechanism": "SCRAM-SHA-512",
        "username": user,
        "password": password,
        "ca": broker.ca,
    }


def roles(prefix: str) -> tuple[Acl, ...]:
    group = f"{prefix}group"
    return acls("processor", PROCESSOR, prefix=prefix, group=group) + acls("publisher", PUBLISHER, prefix=prefix)


def publish(broker: SecureBroker, prefix: str, first: int, windows: int = 6) -> None:
    with Publisher(
        broker.scram,
        model=MODEL,
        topic_prefix=prefix,
        security=scram_security(broker, "publisher", PUBLISHERS),
        signing_key=KEY,
        heartbeat_ms=None,
        linger_ms=0,
        batch_rows=25,
    ) as publisher:
        for number in range(windows):
            assert publisher.publish(frame_at(MODEL, [first + number * 1_000] * 25, number))
        assert publisher.close(30) == 0
        assert publisher.stats.delivered == windows * 25


def without_secrets(text: str) -> str:
    assert "canary" not in text
    return text


def mtls_environment(broker: SecureBroker) -> dict[str, str]:
    own = broker.identity("processor", key_password="canary-of-the-key")
    fields = {"protocol": "SSL", "ca": broker.ca, "certificate": own.certificate, "key": own.key}
    return {f"HYDROPHONE_SECURITY__{name.upper()}": str(value) for name, value in fields.items()} | {
        "HYDROPHONE_SECURITY__KEY_PASSWORD": "canary-of-the-key"
    }


@pytest.mark.parametrize("how", ["scram", "mtls"])
def test_the_acls_of_the_roles_are_enough(guarded: SecureBroker, topic_prefix: str, tmp_path: Path, how: str) -> None:
    make_topics(guarded.bootstrap, topic_prefix)
    reference = small_reference(tmp_path, MODEL)
    variables = scram_environment(guarded, "processor", PASSWORD) if how == "scram" else mtls_environment(guarded)
    address = guarded.scram if how == "scram" else guarded.mtls
    with granted(guarded, roles(topic_prefix)):
        publish(guarded, topic_prefix, now_ms() // 1_000 * 1_000 - 60_000)
        with start(address, topic_prefix, tmp_path, reference=reference, variables=variables | SIGNED) as processor:
            await_until(
                lambda: len(scores_of(guarded.bootstrap, topic_prefix)) >= 4, "four windows closed", timeout_s=150
            )
            assert processor.drain() == 0
        without_secrets(processor.log)
    assert [score.counts.seen for score in scores_of(guarded.bootstrap, topic_prefix)] == [25] * 4


@pytest.mark.parametrize(
    ("operation", "resource", "named"),
    [
        ("Write", "topic", "{prefix}scores.v1"),
        ("Write", "topic", "{prefix}state.v1"),
        ("Read", "topic", "{prefix}state.v1"),
        ("Read", "topic", "{prefix}references.v1"),
        ("Read", "topic", "{prefix}activations.v1"),
        ("Read", "group", "{prefix}group"),
        ("Write", "transactional_id", "{prefix}group-"),
    ],
)
def test_one_acl_fewer_ends_the_processor_and_names_the_resource(
    guarded: SecureBroker, topic_prefix: str, tmp_path: Path, operation: str, resource: str, named: str
) -> None:
    name = named.format(prefix=topic_prefix)
    make_topics(guarded.bootstrap, topic_prefix)
    reference = small_reference(tmp_path, MODEL)
    fewer = [
        acl for acl in roles(topic_prefix) if (acl.operation, acl.resource, acl.name) != (operation, resource, name)
    ]
    assert len(fewer) == len(roles(topic_prefix)) - 1
    with granted(guarded, fewer):
        publish(guarded, topic_prefix, now_ms() // 1_000 * 1_000 - 60_000)
        variables = scram_environment(guarded, "processor", PASSWORD) | SIGNED
        with start(guarded.scram, topic_prefix, tmp_path, reference=reference, variables=variables) as processor:
            assert processor.wait(90) == 3
    said = without_secrets(processor.log).strip().splitlines()[-1]
    assert name in said
    assert "Traceback" not in processor.log
    assert scores_of(guarded.bootstrap, topic_prefix) == []


FOREIGN = "a certificate of an authority the broker does not know"
TROUBLES = {
    "wrong password": "security.password",
    "authority that did not sign the broker": "security.ca",
    "expired certificate": "certificate",
    FOREIGN: "certificate",
    "no certificate": "certificate",
    "wrong key password": "key_password",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_who_is_not_let_in_is_told_what_to_check(guarded: SecureBroker, tmp_path: Path, trouble: str) -> None:
    variables = _troubled(guarded, tmp_path, trouble)
    address = guarded.scram if "HYDROPHONE_SECURITY__PASSWORD" in variables else guarded.mtls

    # Not `process`, which loads torch first: who is let in is asked by the same call.
    asked = ("topics", "describe", "--bootstrap", address, "-X", "debug=all")
    ended = cli(*asked, folder=tmp_path, timeout_s=150, **variables)

    assert ended.returncode == 3
    said = without_secrets(ended.stdout + ended.stderr).strip().splitlines()[-1]
    assert TROUBLES[trouble] in said
    assert "Traceback" not in ended.stderr


def _troubled(broker: SecureBroker, folder: Path, trouble: str) -> dict[str, str]:
    other = Authority(folder / "other", "other")
    if trouble == "wrong password":
        return scram_environment(broker, "processor", "canary-that-is-wrong")
    if trouble.startswith("authority"):
        return scram_environment(broker, "processor", PASSWORD, ca=other.certificate)
    variables = mtls_environment(broker)
    if trouble == "no certificate":
        return {name: value for name, value in variables.items() if name.endswith(("PROTOCOL", "CA"))}
    if trouble == "wrong key password":
        return variables | {"HYDROPHONE_SECURITY__KEY_PASSWORD": "canary-that-is-wrong"}
    own = other.issue("processor") if trouble == FOREIGN else broker.identity("processor", is_expired=True)
    del variables["HYDROPHONE_SECURITY__KEY_PASSWORD"]
    return variables | {
        "HYDROPHONE_SECURITY__CERTIFICATE": str(own.certificate),
        "HYDROPHONE_SECURITY__KEY": str(own.key),
    }


def test_a_forged_frame_never_reaches_a_window(guarded: SecureBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   window   [ 0 )[ 1 )[ 2 )[ 3 )[ 4 )[ 5 )      25 signed rows in each, and in each a forgery beside them
    make_topics(guarded.bootstrap, topic_prefix)
    reference = small_reference(tmp_path, MODEL)
    first = now_ms() // 1_000 * 1_000 - 60_000
    with granted(guarded, roles(topic_prefix)):
        forged = _forge(guarded, topic_prefix, first)
        publish(guarded, topic_prefix, first)
        variables = scram_environment(guarded, "processor", PASSWORD) | SIGNED
        with start(guarded.scram, topic_prefix, tmp_path, reference=reference, variables=variables) as processor:
            await_until(
                lambda: len(scores_of(guarded.bootstrap, topic_prefix)) >= 4, "four windows closed", timeout_s=150
            )
            assert processor.drain() == 0
    assert [score.counts.seen for score in scores_of(guarded.bootstrap, topic_prefix)] == [25] * 4
    letters = read_all(guarded.bootstrap, DEADLETTER.full_name(topic_prefix))
    reasons = {
        (letter := dead_letter_from_headers([(n, v) for n, v in r.headers.items() if isinstance(v, bytes)])).offset: (
            letter.reason
        )
        for r in letters
    }
    assert reasons == forged
    log = read_all(guarded.bootstrap, ACTIVATIONS.full_name(topic_prefix))
    assert len(log) == len(forged) + 6, "records = accepted + dead-lettered"


def _forge(broker: SecureBroker, prefix: str, first: int) -> dict[int, str]:
    """A writer with an ACL and without the key: offset to the reason its frame is refused for."""
    from confluent_kafka import Producer  # noqa: PLC0415

    producer = Producer({"bootstrap.servers": broker.bootstrap, "partitioner": "murmur2_random"})
    frames = [frame_at(MODEL, [first + n * 1_000] * 25, f"forged/{n}", shift=9).encode() for n in range(5)]
    model, other = MODEL.encode(), SigningKey("2026-11", b"not-the-key-of-anybody")
    headers: list[tuple[str, list[tuple[str, bytes | None]]]] = [
        ("unsigned", []),
        ("bad_signature", [("hydrophone-signature", other.sign(model, frames[1]))]),
        ("unknown_key", [("hydrophone-signature", SigningKey("mine", b"a" * 16).sign(model, frames[2]))]),
        ("bad_signature", [("hydrophone-signature", KEY.sign(model, frames[0]))]),
        ("bad_signature", [("hydrophone-signature", KEY.sign(model, frames[4]))] * 2),
    ]
    for frame, (_, signature) in zip(frames, headers, strict=True):
        producer.produce(ACTIVATIONS.full_name(prefix), frame, MODEL, headers=signature)
    assert producer.flush(20) == 0
    return dict(enumerate(reason for reason, _ in headers))


class _Endpoint(BaseHTTPRequestHandler):
    """Gives unsecured tokens for `processor` to whoever shows the secret."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        is_known = "Basic" in self.headers["Authorization"] and "client_credentials" in asked
        claims = {"sub": "processor", "iat": now_ms() // 1000, "exp": now_ms() // 1000 + 600}
        parts = [
            urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)
        ]
        body = json.dumps({"access_token": f"{'.'.join(parts)}.", "token_type": "Bearer", "expires_in": 600}).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def token_endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_token_from_the_endpoint_opens_the_broker(
    guarded: SecureBroker, topic_prefix: str, token_endpoint: str
) -> None:
    make_topics(guarded.bootstrap, topic_prefix)
    fields: Mapping[str, object] = {
        "protocol": "SASL_PLAINTEXT",
        "allow_plaintext": True,
        "mechanism": "OAUTHBEARER",
        "token_endpoint": token_endpoint,
        "client_id": "hydrophone",
        "client_secret": "canary-of-the-client",
        "scope": "kafka",
    }
    kafka = librdkafka(Security.of(fields), {}) | {"bootstrap.servers": guarded.oauth}
    name = ACTIVATIONS.full_name(topic_prefix)
    assert describe_topics(kafka, [name]) == {}, "the broker shows nothing to who may do nothing"
    with granted(guarded, roles(topic_prefix)):
        await_until(lambda: name in describe_topics(kafka, [name]), "the token speaks for User:processor")
