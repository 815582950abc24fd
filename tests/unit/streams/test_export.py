"""`hydrophone export`: what it writes, and how it names the line it cannot read."""

import json
from pathlib import Path

import pytest
from tests.support.events import SCORE

from hydrophone.streams.cli import run


def test_scores_become_the_files_of_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "scores.jsonl"
    lines.write_text(SCORE.model_dump_json() + "\n\n" + SCORE.model_dump_json() + "\n")
    out = tmp_path / "new" / "job"
    assert run(["export", "sagemaker", str(lines), "--out", str(out), "--layout", "reference"]) == 0
    assert {path.name for path in out.iterdir()} == {
        "constraint_violations.json",
        "cloudwatch_metrics.jsonl",
        "message",
    }
    steps = [
        v["description"]["Step"] for v in json.loads((out / "constraint_violations.json").read_text())["violations"]
    ]
    assert steps == [41, 41]
    said = capsys.readouterr()
    assert "2 windows, 2 with violations" in said.out
    assert "--detection-rate" in said.err


@pytest.mark.parametrize("line", ["{", '{"model": "m"}', "[]"])
def test_a_line_that_is_no_score_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    lines = tmp_path / "scores.jsonl"
    lines.write_text(SCORE.model_dump_json() + "\n" + line + "\n")
    assert run(["export", "sagemaker", str(lines), "--out", str(tmp_path / "job")]) == 2
    said = capsys.readouterr().err
    assert f"`{lines}` line 2" in said.replace("\n", "")
    assert "tail scores --json" in said.replace("\n", " ")
    assert not (tmp_path / "job").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "sagemaker", str(tmp_path / "none"), "--out", str(tmp_path / "job")]) == 3
    assert "none" in capsys.readouterr().err
