"""`hydrophone replay` from evidence: what was tampered with is found, and what is missing is named with its remedy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.processor import WIDTH, small_reference

from hydrophone.detectors import Reference
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.origins import Origin
from hydrophone.schemas.score import Counts, Suspect, WindowScore
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.cli import run
from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.evidence import EvidenceStore
from hydrophone.streams.judge import Judge, SampleRules

MODEL = "m"
NAME = "123e4567-e89b-12d3-a456-426614174000"


@dataclass(frozen=True)
class Case:
    folder: Path
    reference: Path
    score: WindowScore
    untested: WindowScore


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_reference(tmp_path_factory.mktemp("reference"), MODEL)


@pytest.fixture
def case(tmp_path: Path, reference: Path) -> Case:
    """A rejecting score with its evidence, and one of a window without a reference."""
    store = EvidenceStore((tmp_path / "evidence").as_uri())
    return Case(tmp_path, reference, _judge(store, Reference.load(reference, device="cpu")), _judge(store))


def _judge(store: EvidenceStore, *pinned: Reference) -> WindowScore:
    values = (np.random.default_rng(8).standard_normal((40, WIDTH)) + 2).astype(np.float32)
    frame = Frame(
        MODEL,
        {"fc": values},
        event_time_ms=np.array(59_999),
        frame_id=NAME,
        origins=[Origin(NAME, row, 2, 5) for row in range(40)],
    )
    closed = WindowClosed(MODEL, 0, 60_000, 2, 5, 9, Counts(seen=90, tested=40), frame if pinned else None, ())
    judge = Judge(
        ReferenceCatalog(pinned),
        topic="t",
        sample=SampleRules(64, "key-id"),
        false_alarms_per_month=5_000,
        window_ms=60_000,
        evidence=store,
    )
    return judge.judge(closed, None, None).score


def replay(case: Case, *scores: WindowScore, references: tuple[Path, ...] | None = None, options: str = "") -> int:
    path = case.folder / "scores.jsonl"
    path.write_text("".join(score.model_dump_json() + "\n" for score in scores))
    pinned = (case.reference,) if references is None else references
    flags = [text for folder in pinned for text in ("--reference", str(folder))]
    return run(["replay", str(path), *flags, "--device", "cpu", *options.split()])


def changed(score: WindowScore, **changes: Any) -> WindowScore:
    return score.model_copy(update=changes)


def failures(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [check["name"] for check in json.loads(capsys.readouterr().out)["checks"] if not check["agrees"]]


def test_scores_as_they_were_told_agree(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.score.rejected
    assert case.score.evidence is not None
    assert replay(case, case.score, case.untested, options="--json") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["agrees"], first["from"], second["agrees"], second["from"]) == (True, "evidence", True, "score")
    assert {check["name"] for check in first["checks"]} >= {"content hash", "suspects", "p", "evidence", "p of fc"}
    (p,) = [check for check in first["checks"] if check["name"] == "p"]
    assert (p["then"], p["now"], p["allowed"]) == (0.05, 0.05, 0.1)


def test_one_score_over_many_lines_is_read_too(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    path = case.folder / "score.json"
    path.write_text(case.score.model_dump_json(indent=2))
    assert run(["replay", str(path), "--reference", str(case.reference), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "m [0, 60000) from the evidence: agrees" in shown
    assert "DIFFERS" not in shown


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("p", "p"),
        ("suspects", "suspects"),
        ("place of a suspect", "suspects"),
        ("seen", "content hash"),
        ("hash", "content hash"),
        ("rejected", "rejected, by its p"),
        ("alpha", "alpha"),
        ("k", "content hash"),
        ("layer", "p of fc"),
        ("window", "content hash"),
        ("id", "score id"),
    ],
)
def test_whatever_is_altered_in_a_score_differs(
    case: Case, capsys: pytest.CaptureFixture[str], change: str, named: str
) -> None:
    score = case.score
    assert score.joint is not None
    first = score.suspects[0]
    other = first.model_copy(update={"row": 39 if first.row != 39 else 38})
    moved: Suspect = first.model_copy(update={"offset": 6})
    altered = {
        "p": {"joint": score.joint.model_copy(update={"p_value": 0.2})},
        "suspects": {"suspects": (other, *score.suspects[1:])},
        "place of a suspect": {"suspects": (moved, *score.suspects[1:])},
        "seen": {"counts": score.counts.model_copy(update={"seen": 91})},
        "hash": {"content_sha256": "0" * 64},
        "rejected": {"rejected": False},
        "alpha": {"alpha": 0.01},
        "k": {"k": 65},
        "layer": {"layers": {"fc": score.layers["fc"].model_copy(update={"p_value": 0.9})}},
        "window": {"window": score.window.model_copy(update={"start_ms": 1})},
        "id": {"id": case.untested.id},
    }[change]
    assert replay(case, changed(score, **altered), options="--json") == 1
    assert named in failures(capsys)


def test_evidence_that_was_tampered_with_differs(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = (case.folder / "evidence").rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert replay(case, case.score, options="--json") == 1
    assert failures(capsys) == ["evidence"]


def test_other_rows_with_a_hash_of_their_own_differ(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.score.evidence is not None
    (file,) = (case.folder / "evidence").rglob("*.safetensors")
    other = EvidenceStore((case.folder / "other").as_uri()).keep(Frame.decode(file.read_bytes()).take(np.arange(39)), 0)
    assert replay(case, changed(case.score, evidence=other), options="--json") == 1
    assert {"content hash", "rows seen, tested"} <= set(failures(capsys))


def test_evidence_that_is_gone_is_named_with_the_remedy(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = (case.folder / "evidence").rglob("*.safetensors")
    file.unlink()
    assert replay(case, case.score) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert f"evidence `{file.as_uri()}` cannot be read" in told
    assert "`--topic-scan`" in told


def test_score_without_evidence_is_sent_to_the_topic(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(case, changed(case.score, evidence=None)) == 3
    assert "replay it with `--topic-scan --bootstrap HOST:PORT`" in capsys.readouterr().err


def test_another_reference_is_refused_by_name(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    other = small_reference(case.folder, MODEL, seed=5)
    assert replay(case, case.score, references=(other,)) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert case.score.reference is not None
    assert f"made with reference m@{case.score.reference.version}" in told
    assert "`--reference DIR`" in told
    assert replay(case, case.score, references=()) == 3
    assert "not among any given" in " ".join(capsys.readouterr().err.split())
    assert replay(case, case.score, references=(other, case.reference)) == 0, "the right one among several"


def test_another_sampling_key_is_refused_before_the_topic_is_read(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(case, case.score, options="--topic-scan --bootstrap localhost:1") == 3
    told = " ".join(capsys.readouterr().err.split())
    assert "sampled with key `key-id` and the key at hand is" in told
    assert "HYDROPHONE_SAMPLING_KEY" in told


def test_what_is_no_score_is_named_by_line(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    path = case.folder / "scores.jsonl"
    path.write_text(case.score.model_dump_json() + '\n{"id": 1}\n')
    assert run(["replay", str(path), "--reference", str(case.reference)]) == 3
    assert "line 2 must be one window score" in capsys.readouterr().err
    path.write_text("\n")
    assert run(["replay", str(path), "--reference", str(case.reference)]) == 3
    assert "holds no score" in capsys.readouterr().err
    assert run(["replay", str(case.folder / "nowhere")]) == 3
    assert "there is no such file" in capsys.readouterr().err
