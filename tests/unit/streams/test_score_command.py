"""`hydrophone score`: the detection rate on request, and a table of every kind of layer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.frames import gaussian_frame

from hydrophone.detectors import fit_reference
from hydrophone.schemas.frame import Frame
from hydrophone.streams.cli import run


def answered(rows: int, seed: int) -> Frame:
    output = np.random.default_rng(seed).dirichlet(np.ones(3), rows).astype(np.float32)
    return replace(gaussian_frame(rows, seed), output=output)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder: Path = tmp_path_factory.mktemp("score")
    fit_reference([answered(700, 1)], permutations=99, device="cpu").save(folder / "reference")
    (folder / "window.safetensors").write_bytes(answered(120, 2).encode())
    return ["score", "--reference", str(folder / "reference"), str(folder / "window.safetensors"), "--device", "cpu"]


def test_rates_are_added_where_they_are_asked_for(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run([*command, "--json"])
    plain = json.loads(capsys.readouterr().out)
    run([*command, "--json", "--detection-rate"])
    asked = json.loads(capsys.readouterr().out)
    assert plain["detection_rate"] is plain["baseline_detection_rate"] is None
    assert 0.0 <= asked["detection_rate"] <= 1.0
    assert 0.0 <= asked["baseline_detection_rate"] <= 1.0
    assert asked["layers"]["fc"]["detection_rate"] is not None
    assert asked["layers"]["(output)"]["detection_rate"] is None, "the output has no kernel"
    assert asked["joint"] == plain["joint"]


def test_people_read_the_rate_beside_its_baseline(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run([*command, "--detection-rate"])
    told = capsys.readouterr().out
    assert "detection rate" in told
    assert "the reference against itself" in told
    assert "(output)" in told
