"""`hydrophone evaluate` prints what was found, as a table, as JSON, and as one page that asks for nothing else."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tests.support.labelled import judging, labelled

from hydrophone.detectors.evaluation import evaluate, which_model
from hydrophone.schemas.frame import Frame
from hydrophone.streams.cli import run
from hydrophone.streams.evaluation_page import page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    judging().save(folder / "reference")
    frame = labelled(rows=100)
    (folder / "frames.safetensors").write_bytes(frame.encode())
    hostile = frame.take(np.flatnonzero(np.array(frame.label) == 1))
    for name, rows in (("a", slice(0, 100)), ("b", slice(100, 200))):
        part = hostile.take(np.arange(200)[rows])
        (folder / name).mkdir()
        (folder / name / "1.safetensors").write_bytes(part.encode())
    return folder


def command(folder: Path, *more: str) -> list[str]:
    return ["evaluate", str(folder / "frames.safetensors"), "--reference", str(folder / "reference"), *more]


def test_the_table_names_attacks_sources_and_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(folder, "--device", "cpu")) == 0
    text = capsys.readouterr().out
    for name in ("far", "near", "all attacks", "natural", "odd", "late", "early", "ROC-AUC", "gate"):
        assert name in text


def test_json_holds_everything_and_no_nan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("--json", "--models", f"A={folder / 'a'}", f"B={folder / 'b'}")
    assert run(command(folder, *both)) == 0
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert {report["attack"] for report in said["evaluation"]["attacks"]} == {"far", "near"}
    assert said["evaluation"]["sources"][0]["gate_accepts"]["(all)"]["share"] > 0.8
    assert said["evaluation"]["picture"] is None, "nobody asked for it"
    assert [model["model"] for model in said["models"]["models"]] == ["A", "B"]


def test_models_can_be_asked_about_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "--models", f"A={folder / 'a'}", f"B={folder / 'b'}"]) == 0
    assert "which model was attacked: right" in capsys.readouterr().out


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_stands_alone_and_has_every_plot(folder: Path) -> None:
    where = folder / "page.html"
    assert run(command(folder, "--html", str(where), "--models", f"A={folder / 'a'}", f"B={folder / 'b'}")) == 0
    text = where.read_text()
    tags = Tags()
    tags.feed(text)
    names = [tag for tag, _ in tags.seen]
    assert names.count("svg") == 7
    assert not {"script", "link", "img", "iframe"} & set(names)
    for _, attributes in tags.seen:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), "nothing is fetched"
    assert not re.search(r"url\((?!#)", text)
    for title in ("Attacks", "Reliability of abstention", "Detection rate per layer", "Gate acceptance by source"):
        assert f"<h2>{title}</h2>" in text
    assert len(re.findall(r">predicted \d<", text)) == 3


def test_names_from_frames_cannot_become_markup(folder: Path) -> None:
    evil = "<script>alert(1)</script>\x00$x_{"
    frame = Frame.decode((folder / "frames.safetensors").read_bytes())
    names = [evil if name == "far" else name for name in frame.attack or ()]
    from hydrophone.detectors import Reference  # noqa: PLC0415

    found = evaluate([replace(frame, attack=names)], Reference.load(folder / "reference", device="cpu"))
    text = page(found)
    assert "<script" not in text
    assert "alert(1)" in text
    assert "\x00" not in text
    assert page(found) == text, "the same numbers give the same page"
    assert len(text) < 3_000_000


def test_a_page_of_models_alone_is_a_page_too(folder: Path) -> None:
    parts = {name: [Frame.decode((folder / name / "1.safetensors").read_bytes())] for name in "ab"}
    assert page(None, which_model(parts)).count("<svg") == 1


@pytest.mark.parametrize("arguments", [[], ["frames"], ["--models", "nothing"], ["--models", "A="]])
def test_what_is_missing_is_said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", *arguments]) == 3
    said = capsys.readouterr().err
    assert "wants FRAMES" in said or "takes NAME=FRAMES" in said
