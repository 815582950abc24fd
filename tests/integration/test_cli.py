"""The program keeps its documented shapes: what it prints, where, and with which exit code it ends.

0 fine, 1 a finding or nothing arrived in time, 2 usage, 3 configuration, 4 broker. Every command runs as a process of
its own, as a script would call it. Ctrl-C leaves nothing behind.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.broker import produce
from tests.support.events import ALERT, SCORE
from tests.support.processor import cli, environment, frame_at, make_topics, small_reference

from hydrophone.schemas.headers import to_record
from hydrophone.schemas.score import WindowScore
from hydrophone.streams import FrameWriter
from hydrophone.streams.clock import now_ms
from hydrophone.streams.topics import ACTIVATIONS, ALERTS, SCORES, TOPICS

pytestmark = pytest.mark.broker

MODEL = "shaped"


@pytest.fixture
def where(broker: KraftBroker, topic_prefix: str) -> tuple[str, ...]:
    """Topics, and the options that name them."""
    make_topics(broker.bootstrap, topic_prefix, partitions=2)
    return "--bootstrap", broker.bootstrap, "--prefix", topic_prefix


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Natural frames in a folder."""
    with FrameWriter(tmp_path / "frames", model=MODEL) as writer:
        for number in range(6):
            writer.publish(frame_at(MODEL, [now_ms()] * 20, f"natural/{number}"))
    return tmp_path / "frames"


def test_topics_are_created_once_and_described(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    options = ("--bootstrap", broker.bootstrap, "--prefix", topic_prefix)

    created = cli("topics", "create", "--partitions", 3, *options, folder=tmp_path)
    again = cli("topics", "create", "--partitions", 3, *options, folder=tmp_path)
    other = cli("topics", "create", "--partitions", 4, *options, folder=tmp_path)
    described = cli("topics", "describe", "--json", *options, folder=tmp_path)

    assert (created.returncode, again.returncode) == (0, 0), created.stderr + again.stderr
    assert created.stdout.count("created ") == again.stdout.count("existing ") == len(TOPICS)
    assert other.returncode == 3
    assert "partitions=3" in other.stdout
    found = {line["name"]: line for line in map(json.loads, described.stdout.splitlines())}
    assert found[ACTIVATIONS.full_name(topic_prefix)]["partitions"] == 3
    assert found[ACTIVATIONS.full_name(topic_prefix)]["configs"]["message.timestamp.type"] == "LogAppendTime"


def test_recorded_frames_are_those_of_the_topic(
    broker: KraftBroker, topic_prefix: str, where: tuple[str, ...], tmp_path: Path
) -> None:
    sent = [frame_at(MODEL, [now_ms()] * 10, number) for number in range(3)]
    records: list[tuple[bytes | None, bytes | None]] = [(MODEL.encode(), frame.encode()) for frame in sent]
    records.insert(1, (MODEL.encode(), b"poison"))
    records.insert(2, (b"another", frame_at("another", [1], 0).encode()))
    produce(broker.bootstrap, ACTIVATIONS.full_name(topic_prefix), records)

    done = cli("record", "--model", MODEL, "--rows", 30, "--out", "recorded", *where, folder=tmp_path)
    short = cli("record", "--model", MODEL, "--rows", 31, "--out", "s", "--timeout", 2, *where, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "left out offset" in done.stderr
    assert short.returncode == 1
    scored = cli("score", "--reference", small_reference(tmp_path, MODEL), "recorded", "--json", folder=tmp_path)
    score = WindowScore.model_validate_json(scored.stdout)
    assert (score.counts.seen, scored.returncode) == (30, int(score.rejected))


def test_reference_is_fitted_shown_and_scored_against(frames: Path, tmp_path: Path) -> None:
    with FrameWriter(tmp_path / "odd", model=MODEL) as writer:
        writer.publish(frame_at(MODEL, [now_ms()] * 40, "odd", shift=3.0))
    fit = ("reference", "fit", frames, "--model", MODEL, "--out", "ref", "--permutations", 99, "--seed", 1)

    fitted = cli(*fit, "--json", "--device", "cpu", folder=tmp_path)
    shown = cli("reference", "show", "ref", "--json", folder=tmp_path)
    odd = cli("score", "--reference", "ref", "odd", "--json", "--device", "cpu", folder=tmp_path)

    assert fitted.returncode == shown.returncode == 0, fitted.stderr + shown.stderr
    manifest = json.loads(fitted.stdout)
    assert (manifest["model"], manifest["permutations"]) == (MODEL, 99)
    assert json.loads(shown.stdout)["version"] == manifest["version"]
    score = WindowScore.model_validate_json(odd.stdout)
    assert (odd.returncode, score.rejected, score.permutations) == (1, True, 99)
    assert score.reference is not None
    assert score.reference.sha256 == json.loads(shown.stdout)["sha256"]


def test_tail_prints_what_is_there_and_says_when_nothing_came(
    broker: KraftBroker, topic_prefix: str, where: tuple[str, ...], tmp_path: Path
) -> None:
    for topic, event in ((SCORES, SCORE), (ALERTS, ALERT)):
        record = to_record(event, key=event.model, time_ms=event.window.end_ms)
        headers = dict(record.headers)
        produce(broker.bootstrap, topic.full_name(topic_prefix), [(record.key, record.value)], headers=headers)
    old = ("--json", "--from-beginning", "--count", 1, "--timeout", 30)

    scores = cli("tail", "scores", *old, *where, folder=tmp_path)
    alerts = cli("tail", "alerts", *old, *where, folder=tmp_path)
    readable = cli("tail", "alerts", "--from-beginning", "--count", 1, *where, folder=tmp_path)
    too_few = cli("tail", "alerts", "--from-beginning", "--count", 2, "--timeout", 1, *where, folder=tmp_path)
    latest = cli("tail", "scores", "--count", 1, "--timeout", 1, *where, folder=tmp_path)

    assert (scores.returncode, alerts.returncode, readable.returncode) == (0, 0, 0), scores.stderr + alerts.stderr
    assert scores.stdout == SCORE.model_dump_json() + "\n"
    assert alerts.stdout == ALERT.model_dump_json() + "\n"
    assert ALERT.title in readable.stdout
    assert (too_few.returncode, len(too_few.stdout.splitlines())) == (1, 1)
    assert (latest.returncode, latest.stdout) == (1, ""), "from now on, and nothing came"


def test_doctor_says_what_is_amiss_and_what_to_do(
    broker: KraftBroker, topic_prefix: str, where: tuple[str, ...], tmp_path: Path
) -> None:
    well = cli("doctor", "--json", *where, "--reference", small_reference(tmp_path, MODEL), folder=tmp_path)
    missing = cli("doctor", "--json", "--bootstrap", broker.bootstrap, "--prefix", "no-such.", folder=tmp_path)

    assert well.returncode == 0, well.stdout
    findings = [json.loads(line) for line in well.stdout.splitlines()]
    assert {f["what"] for f in findings if f["state"] == "ok"} >= {"broker", "topics", "partitions", "retention"}
    assert missing.returncode == 3
    assert any("hydrophone topics create" in json.loads(line)["remedy"] for line in missing.stdout.splitlines())


def test_settings_show_what_is_in_force_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "hydrophone.toml").write_text("window_ms = 5000\nk = 64\n")

    shown = cli("settings", "--json", folder=tmp_path, HYDROPHONE_K="128", HYDROPHONE_SAMPLING_KEY="hush")

    values = json.loads(shown.stdout)
    assert (shown.returncode, values["window_ms"], values["k"]) == (0, 5000, 128)
    assert "hush" not in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("no-such-command",), 2, "no-such-command"),
        (("score",), 2, "FRAMES"),
        (("tail", "scores", "--count", "0"), 2, "--count"),
        (("process",), 3, "`bootstrap` must name a broker"),
        (("process", "--window-ms", "0", "--guarantee", "maybe"), 3, "`window_ms`"),
        (("process", "-X", "nonsense", "--bootstrap", "127.0.0.1:1"), 3, "KEY=VALUE"),
    ],
)
def test_fault_of_the_caller_is_told_in_a_line_with_its_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = cli(*arguments, folder=tmp_path)

    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.fixture
def following(where: tuple[str, ...], tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [
        sys.executable,
        "-u",
        "-m",
        "hydrophone.streams.cli",
        "tail",
        "scores",
        "--from-beginning",
        "--json",
        *where,
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_ctrl_c_ends_a_tail_at_once_and_leaves_nothing_behind(
    broker: KraftBroker, topic_prefix: str, following: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    record = to_record(SCORE, key=SCORE.model, time_ms=0)
    produce(
        broker.bootstrap, SCORES.full_name(topic_prefix), [(record.key, record.value)], headers=dict(record.headers)
    )
    assert following.stdout is not None
    assert following.stdout.readline()  # it follows

    os.killpg(following.pid, signal.SIGINT)
    out, err = following.communicate(timeout=15)

    assert following.returncode == 130
    assert (out, err) == ("", "")
    assert set(tmp_path.iterdir()) == before
    with pytest.raises(ProcessLookupError):
        os.killpg(following.pid, 0)
