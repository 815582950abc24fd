"""One line an event: JSON for machines, readable on a terminal, with exceptions and without surprises."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from hydrophone.streams import logs
from hydrophone.streams.settings import load_settings

log = logging.getLogger("hydrophone")


class Stderr:
    """What went to standard error so far."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture, self._text = capture, ""

    def getvalue(self) -> str:
        self._text += self._capture.readouterr().err
        return self._text


@pytest.fixture
def stream(capsys: pytest.CaptureFixture[str]) -> Iterator[Stderr]:
    """Standard error, with the process's logging put back afterwards."""
    root, levels = logging.getLogger(), (logging.getLogger().level, log.level)
    handlers = list(root.handlers)
    yield Stderr(capsys)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    log.setLevel(levels[1])


def lines(stream: Stderr) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line_bears_time_level_event_and_fields(stream: Stderr) -> None:
    logs.configure("json")
    log.info("window_closed", extra={"model": "m", "p_value": 0.25, "reason": None})

    (line,) = lines(stream)

    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "info", "event": "window_closed", "model": "m", "p_value": 0.25, "reason": None}


def test_auto_is_json_where_nobody_watches(stream: Stderr) -> None:
    logs.configure("auto")
    log.warning("broker: %s", "gone\nagain")

    assert [line["event"] for line in lines(stream)] == ["broker: gone\nagain"], "one line, whatever the message holds"


def test_text_line_leaves_out_what_is_none(stream: Stderr) -> None:
    logs.configure("text")
    log.info("window_closed", extra={"model": "m", "reason": None})

    (line,) = stream.getvalue().splitlines()

    assert line.endswith("info    window_closed model=m")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_exception_is_told_with_its_trace(stream: Stderr, log_format: str) -> None:
    logs.configure(log_format)
    try:
        raise ValueError("the cause")
    except ValueError:
        log.exception("evidence could not be stored")

    assert "ValueError: the cause" in stream.getvalue()
    if log_format == "json":
        assert len(lines(stream)) == 1


def test_value_json_does_not_know_is_told_as_text(stream: Stderr) -> None:
    logs.configure("json")
    log.info("odd", extra={"value": {1}, "bytes": b"x"})

    assert lines(stream)[0]["value"] == "{1}"


def test_other_libraries_warn_and_do_not_chat(stream: Stderr) -> None:
    logs.configure("json")
    logging.getLogger("somebody.else").info("chatter")
    logging.getLogger("somebody.else").warning("careful")

    assert [line["event"] for line in lines(stream)] == ["careful"]


def test_settings_in_a_log_line_show_no_secret(stream: Stderr) -> None:
    logs.configure("json")
    settings = load_settings(sampling_key="hush-hush", kafka={"sasl.password": "s3cret", "client.rack": "r1"})

    log.info("processor started", extra={"settings": settings.redacted()})
    log.info("processor started %s %r", settings, settings)

    assert "hush-hush" not in stream.getvalue()
    assert "s3cret" not in stream.getvalue()
    assert "r1" in stream.getvalue()
