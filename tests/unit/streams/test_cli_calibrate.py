"""`hydrophone reference calibrate`: from frames or from scores, and what it refuses with which remedy."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.frames import class_frame
from typer.testing import CliRunner, Result

from hydrophone.detectors import Reference, fit_reference
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Frame
from hydrophone.streams.cli.references import reference as app

SHARES = (0.6, 0.4)
BOUNDS = WindowBounds(start_ms=0, end_ms=60_000)


def traffic(rows: int, seed: int) -> Frame:
    return class_frame(rows, seed, shares=SHARES, event_time_ms=np.arange(rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A fitted reference, and 6,000 rows of clean traffic beside it."""
    fit_reference([traffic(150, 1)], permutations=19, device="cpu").save(tmp_path / "base")
    (tmp_path / "clean.safetensors").write_bytes(traffic(6_000, 2).encode())
    return tmp_path


def calibrate(folder: Path, *arguments: object) -> Result:
    options = ["--reference", str(folder / "base"), "--out", str(folder / "new"), "--device", "cpu"]
    return CliRunner().invoke(app, ["calibrate", *options, *map(str, arguments)])


def test_clean_frames_make_a_new_version(folder: Path) -> None:
    done = calibrate(folder, folder / "clean.safetensors", "--rows", 25)
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "among 240 clean ones" in " ".join(done.output.split())
    result = Reference.load(folder / "new", device="cpu").test(traffic(25, 3))
    assert (result.calibration, result.calibration_windows) == ("windows", 240)


def test_scores_of_clean_windows_do_as_well(folder: Path) -> None:
    base = Reference.load(folder / "base", device="cpu")
    scores = [base.test(traffic(25, 10 + i)).to_score(window=BOUNDS).model_dump_json() for i in range(199)]
    (folder / "scores.jsonl").write_text("\n".join(scores))
    done = calibrate(folder, "--scores", folder / "scores.jsonl")
    assert done.exit_code == 0, done.output + repr(done.exception)
    kept = Reference.load(folder / "new", device="cpu").window_null
    assert kept is not None
    assert (kept.rows, len(kept.statistics)) == (25, 199)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((), "FRAMES of clean traffic or `--scores`"),
        (("clean.safetensors", "--rows", 100), "6000 rows make 60 of 100 rows: record more"),
        (("own.safetensors",), "rows are the reference's own"),
        (("--scores", "clean.safetensors"), "cannot be read"),
        (("--scores", "bad.jsonl"), "line 2 is no score"),
    ],
)
def test_what_cannot_calibrate_is_refused_with_its_remedy(
    folder: Path, arguments: tuple[object, ...], rule: str
) -> None:
    (folder / "own.safetensors").write_bytes(traffic(150, 1).encode())
    good = Reference.load(folder / "base", device="cpu").test(traffic(25, 3)).to_score(window=BOUNDS)
    (folder / "bad.jsonl").write_text(f"{good.model_dump_json()}\n{{}}\n")
    places = [folder / a if isinstance(a, str) and "." in a else a for a in arguments]
    done = calibrate(folder, *places)
    assert done.exit_code != 0
    assert rule in str(done.exception)
    assert not (folder / "new").exists()
