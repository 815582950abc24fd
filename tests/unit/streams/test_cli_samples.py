"""`hydrophone reference fit --samples, --labelled`: detectors of single rows, and what is refused with what remedy."""

from pathlib import Path

import pytest
from tests.support.samples import MODEL, attacked, natural
from typer.testing import CliRunner, Result

from hydrophone.detectors import Reference
from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.streams.cli.references import reference as app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "natural.safetensors").write_bytes(natural(600, 1).encode())
    (tmp_path / "labelled").mkdir()
    for place, frame in enumerate(attacked(60, 7)):
        (tmp_path / "labelled" / f"{place}.safetensors").write_bytes(frame.encode())
    return tmp_path


def fit(folder: Path, *arguments: object) -> Result:
    options = ["--model", MODEL, "--out", str(folder / "new"), "--permutations", "19", "--device", "cpu"]
    return CliRunner().invoke(app, ["fit", str(folder / "natural.safetensors"), *options, *map(str, arguments)])


def test_labelled_frames_teach_it_attacks(folder: Path) -> None:
    done = fit(folder, "--labelled", folder / "labelled", "--embedding", "late", "--accuracy", 0.9)
    assert done.exit_code == 0, done.output + repr(done.exception)
    said = " ".join(done.output.split())
    assert "embedding `late`, 300 rows of density, 150 of tails, 150 to rank among" in said
    assert "attack DeepFool (minimal): ROC-AUC" in said
    loaded = Reference.load(folder / "new", device="cpu").samples
    assert loaded is not None
    assert loaded.judge(natural(5, 2)).decision.shape == (5,)
    shown = CliRunner().invoke(app, ["show", str(folder / "new")]).output
    assert "attacks known: DeepFool, FGSM.12" in " ".join(shown.split())


def test_without_being_asked_for_there_are_none(folder: Path) -> None:
    assert fit(folder).exit_code == 0
    assert Reference.load(folder / "new", device="cpu").samples is None


def test_an_absurd_accuracy_is_refused_before_anything_is_written(folder: Path) -> None:
    done = fit(folder, "--samples", "--accuracy", 0.0033)
    assert isinstance(done.exception, ReferenceInvalid)
    assert "pre-processing" in str(done.exception)
    assert not (folder / "new").exists()


def test_options_that_would_do_nothing_are_refused(folder: Path) -> None:
    assert "add `--samples`" in str(fit(folder, "--accuracy", 0.9).exception)
