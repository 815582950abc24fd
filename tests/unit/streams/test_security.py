"""One model of the connection's security, two dialects; every fault at once; no secret in anything that is shown."""

import asyncio
import json
import logging
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]  # re-exported without saying so
from deploy.broker.certificates import Authority
from tests.support.processor import cli

from hydrophone.schemas.errors import BrokerUnavailable, ConfigurationError, SettingsError
from hydrophone.streams.kafka.admin import describe_topics
from hydrophone.streams.publisher import Publisher
from hydrophone.streams.security import Security, aiokafka, librdkafka
from hydrophone.streams.settings import load_settings

CANARY = "canary-4711"
SCRAM = {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": "u", "password": CANARY}
OIDC = {
    "protocol": "SASL_SSL",
    "mechanism": "OAUTHBEARER",
    "token_endpoint": "https://issuer/token",
    "client_id": "me",
    "client_secret": CANARY,
    "scope": "kafka",
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_librdkafka_is_told_in_its_own_words() -> None:
    assert librdkafka(Security(), {"client.rack": "a"}) == {"client.rack": "a"}
    tls = {
        "ssl.endpoint.identification.algorithm": "https",
        "enable.ssl.certificate.verification": "true",
    }
    assert librdkafka(Security.of(SCRAM | {"ca": "ca.pem"}), {}) == tls | {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "ca.pem",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "u",
        "sasl.password": CANARY,
    }
    mtls = {"protocol": "SSL", "certificate": "c.pem", "key": "k.pem", "key_password": CANARY}
    assert librdkafka(Security.of(mtls), {}) == tls | {
        "security.protocol": "SSL",
        "ssl.certificate.location": "c.pem",
        "ssl.key.location": "k.pem",
        "ssl.key.password": CANARY,
    }
    assert librdkafka(Security.of(OIDC), {}) == tls | {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://issuer/token",
        "sasl.oauthbearer.client.id": "me",
        "sasl.oauthbearer.client.secret": CANARY,
        "sasl.oauthbearer.scope": "kafka",
    }


@pytest.mark.parametrize(
    "fields",
    [
        SCRAM,
        SCRAM | {"mechanism": "PLAIN"},
        SCRAM | {"protocol": "SASL_PLAINTEXT", "allow_plaintext": True},
        OIDC,
    ],
)
def test_librdkafka_takes_what_it_is_told(fields: dict[str, Any]) -> None:
    AdminClient(librdkafka(Security.of(fields), {}) | {"bootstrap.servers": "127.0.0.1:1", "log_level": 0})


def test_aiokafka_is_told_in_its_own_words(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("me", key_password=CANARY)
    mtls = {"protocol": "SSL", "ca": authority.certificate, "certificate": own.certificate, "key": own.key}

    assert aiokafka(Security()) == {"security_protocol": "PLAINTEXT"}
    told = aiokafka(Security.of(SCRAM | {"ca": authority.certificate}))
    context = told.pop("ssl_context")
    assert told == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": CANARY,
    }
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert [ca["subject"] for ca in context.get_ca_certs()] == [((("commonName", "authority"),),)]
    assert aiokafka(Security.of(mtls | {"key_password": CANARY})).keys() == {"security_protocol", "ssl_context"}
    with pytest.raises(SettingsError, match="`key_password` must open the key") as refusal:
        aiokafka(Security.of(mtls | {"key_password": "another canary"}))
    assert "canary" not in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"protocol": "SSL", "certificate": "c"}, ["`certificate` and `key` belong together"]),
        ({"protocol": "SSL", "key_password": CANARY}, ["`key_password` opens a `key`"]),
        ({"ca": "c", "username": "u"}, ["`ca` need TLS", "`username` need SASL"]),
        ({"protocol": "SASL_SSL"}, ["`mechanism` must be given"]),
        ({"protocol": "SASL_SSL", "mechanism": "PLAIN", "password": CANARY}, ["needs `username`"]),
        (SCRAM | {"password": ""}, ["needs `password`"]),
        (SCRAM | {"client_id": "me"}, ["no use for `client_id`"]),
        (OIDC | {"client_secret": None, "password": CANARY}, ["needs `client_secret`", "no use for `password`"]),
        (OIDC | {"token_endpoint": "http://issuer"}, ["must begin with https://"]),
        (OIDC | {"token_endpoint": f"https://u:{CANARY}@issuer"}, ["must not carry a user"]),
        (OIDC | {"token_endpoint": f"https://[{CANARY}"}, ["must be a URL"]),
        (SCRAM | {"protocol": "SASL_PLAINTEXT"}, ["`allow_plaintext = true`"]),
        ({"protocol": "SASL", "certificate": "c", "pasword": CANARY}, ["`protocol`", "`pasword`", "belong together"]),
    ],
)
def test_rules_between_fields_are_told_together_and_without_secrets(fields: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(SettingsError) as alone:
        Security.of(fields)
    with pytest.raises(SettingsError) as within:
        load_settings(security=fields, k=1)
    for fault in faults:
        assert fault in str(alone.value)
        assert fault in str(within.value)
    assert "`k`" in str(within.value)
    assert CANARY not in f"{alone.value}{within.value}"


def test_a_property_said_twice_is_a_fault() -> None:
    settings = load_settings(bootstrap="b:1", security=SCRAM, kafka={"sasl.password": CANARY, "client.rack": "a"})
    with pytest.raises(SettingsError, match=r"`sasl\.password`") as refusal:
        _ = settings.kafka_properties
    assert CANARY not in str(refusal.value)
    with pytest.raises(SettingsError, match=r"`sasl\.username`"):
        Publisher("b:1", model="m", security=SCRAM, sasl_username="me")


def test_file_and_environment_speak(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "hydrophone.toml").write_text(
        'bootstrap = "b:1"\n[security]\nprotocol = "SASL_SSL"\nmechanism = "PLAIN"\nusername = "file"\n'
    )
    monkeypatch.setenv("HYDROPHONE_SECURITY__USERNAME", "environment")
    monkeypatch.setenv("HYDROPHONE_SECURITY__PASSWORD", CANARY)
    kafka = load_settings().kafka_properties
    assert (kafka["sasl.mechanism"], kafka["sasl.username"], kafka["sasl.password"]) == ("PLAIN", "environment", CANARY)


def test_no_secret_is_shown(empty_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(
        security=SCRAM, signatures="require", signing_keys={"a": CANARY * 2}, sampling_key=CANARY, bootstrap="b:1"
    )
    shown = [settings, repr(settings), settings.redacted(), settings.security, settings.sha256]
    assert CANARY not in f"{shown}{settings.security!r}"
    variables = {
        "HYDROPHONE_SECURITY__PASSWORD": CANARY,
        "HYDROPHONE_SECURITY__USERNAME": "u",
        "HYDROPHONE_SECURITY__MECHANISM": "PLAIN",
        "HYDROPHONE_SECURITY__PROTOCOL": "SASL_SSL",
        "HYDROPHONE_SIGNING_KEYS": json.dumps({"a": CANARY * 2}),
        "HYDROPHONE_SIGNATURES": "accept",
    }
    for options in ((), ("--json",), ("--describe",)):
        printed = cli("settings", *options, folder=empty_folder, **variables)
        assert printed.returncode == 0, printed.stderr
        assert "********" in printed.stdout
        assert CANARY not in printed.stdout + printed.stderr
    bad = cli("settings", folder=empty_folder, **variables | {"HYDROPHONE_SECURITY__PROTOCOL": "SSL"})
    assert bad.returncode == 3
    assert CANARY not in bad.stdout + bad.stderr


def test_a_failing_connection_shows_no_secret_even_when_the_client_tells_all(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(bootstrap="127.0.0.1:1", security=SCRAM, kafka={"debug": "all"})
    caplog.set_level(logging.DEBUG)
    with pytest.raises(BrokerUnavailable) as refusal:
        describe_topics(settings.kafka_properties, ["t"], timeout_s=1)
    printed = capfd.readouterr()
    assert "sasl" in caplog.text.lower() + printed.err.lower(), "the client was asked to tell all"
    assert CANARY not in f"{caplog.text}{printed}{refusal.value!r}{refusal.value.__cause__!r}"


def test_files_that_are_not_there_are_named_with_the_remedy() -> None:
    security = {"protocol": "SSL", "ca": "/nowhere/ca.pem"}
    with pytest.raises(ConfigurationError, match=r"`?ssl\.ca\.location.*readable PEM"):
        describe_topics(librdkafka(Security.of(security), {}) | {"bootstrap.servers": "127.0.0.1:1"}, ["t"])
    with pytest.raises(SettingsError, match="readable PEM"):
        aiokafka(Security.of(security))


class _Endpoint(BaseHTTPRequestHandler):
    asked: list[tuple[str, str]] = []  # noqa: RUF012
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.headers["Authorization"], body))
        answer = json.dumps({"access_token": f"token-{len(self.asked)}", "expires_in": 600}).encode()
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    _Endpoint.asked, _Endpoint.status = [], 200
    server = HTTPServer(("127.0.0.1", 0), _Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    thread.join()
    server.server_close()


def _token_from(endpoint: str) -> Any:
    fields = OIDC | {"protocol": "SASL_PLAINTEXT", "allow_plaintext": True, "token_endpoint": endpoint}
    return aiokafka(Security.of(fields))["sasl_oauth_token_provider"]


def test_a_token_is_bought_once_and_kept(endpoint: str) -> None:
    provider = _token_from(endpoint)
    assert [asyncio.run(provider.token()) for _ in range(3)] == ["token-1"] * 3
    (authorization, body) = _Endpoint.asked[0]
    assert authorization == "Basic bWU6Y2FuYXJ5LTQ3MTE="
    assert body == "grant_type=client_credentials&scope=kafka"


def test_an_endpoint_that_gives_no_token_is_named(endpoint: str) -> None:
    _Endpoint.status = 401
    with pytest.raises(BrokerUnavailable, match=r"gave no token: Unauthorized; check `client_id`") as refusal:
        asyncio.run(_token_from(endpoint).token())
    assert CANARY not in str(refusal.value)


def test_kafka_exceptions_name_no_values() -> None:
    with pytest.raises(KafkaException) as refusal:
        AdminClient({"bootstrap.servers": "b:1", "sasl.password": CANARY, "no.such.property": CANARY})
    assert CANARY not in str(refusal.value)
