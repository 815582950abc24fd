"""Detectors inside a reference's folder: what identity, windows and safety promise of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.samples import natural

from hydrophone.detectors import Reference, fit_reference
from hydrophone.detectors.samples import SampleDetectors, fit_samples
from hydrophone.detectors.samples.manifest import FOREST, SAMPLES
from hydrophone.schemas.errors import ReferenceInvalid


@pytest.fixture(scope="module")
def base(_one_thread: None) -> Reference:
    return fit_reference([natural(300, 1)], permutations=99, device="cpu")


@pytest.fixture
def folder(base: Reference, learnt: SampleDetectors, tmp_path: Path) -> Path:
    base.with_samples(learnt).save(tmp_path / "both")
    return tmp_path / "both"


def test_a_reference_comes_back_with_its_detectors(folder: Path, learnt: SampleDetectors) -> None:
    loaded = Reference.load(folder, device="cpu").samples
    assert loaded is not None
    frame = natural(100, 30, shift=0.5)
    found, expected = loaded.judge(frame), learnt.judge(frame)
    np.testing.assert_array_equal(found.suspicion, expected.suspicion)
    np.testing.assert_array_equal(found.p_value, expected.p_value)
    assert found.attacks == expected.attacks
    np.testing.assert_array_equal(loaded.gate(frame).p_value, learnt.gate(frame).p_value)


def test_windows_are_tested_as_without_them(base: Reference, folder: Path) -> None:
    both, window = Reference.load(folder, device="cpu"), natural(100, 31, shift=0.1)
    assert both.id.sha256 != base.id.sha256
    assert both.id.version != base.id.version
    assert both.test(window).p_value == base.test(window).p_value
    assert both.test(window).row_p_values == base.test(window).row_p_values


def test_a_reference_without_them_keeps_its_identity(base: Reference, tmp_path: Path) -> None:
    assert base.samples is None
    assert "samples" not in base.manifest.text()
    base.save(tmp_path / "old")
    assert not (tmp_path / "old" / SAMPLES).exists()
    assert Reference.load(tmp_path / "old", device="cpu").id == base.id


def test_calibrating_keeps_them(folder: Path) -> None:
    both = Reference.load(folder, device="cpu")
    calibrated = both.calibrate(np.random.default_rng(0).normal(size=199).tolist(), rows=50)
    assert calibrated.samples is not None
    assert calibrated.manifest.files[SAMPLES] == both.manifest.files[SAMPLES]
    frame = natural(20, 32)
    assert both.samples is not None
    np.testing.assert_array_equal(calibrated.samples.judge(frame).p_value, both.samples.judge(frame).p_value)


def test_other_detectors_can_take_their_place(base: Reference, learnt: SampleDetectors, plain: SampleDetectors) -> None:
    replaced = base.with_samples(learnt).with_samples(plain)
    assert set(replaced.manifest.files) == {*base.manifest.files, SAMPLES}
    assert replaced.manifest.files == base.with_samples(plain).manifest.files
    assert replaced.manifest.seed_sha256 == base.manifest.seed_sha256


def test_detectors_of_another_model_are_refused(base: Reference) -> None:
    other = fit_samples([natural(500, 1, model="b")], embedding="late", device="cpu", reject_level=0.02)
    with pytest.raises(ReferenceInvalid, match="must be of model `classifier`; got `b`"):
        base.with_samples(other)


@pytest.mark.parametrize("name", [SAMPLES, FOREST])
def test_a_changed_byte_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ReferenceInvalid, match=f"{name}` was changed"):
        Reference.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("measures", ["uncertainty.entropy"]),
        ("branches", ["regression"]),
        ("layers", {"early": 8, "late": 21}),
        ("layers", {"late": 20}),
        ("embedding", "early"),
        ("classes", [0, 1]),
    ],
)
def test_a_manifest_that_says_otherwise_is_refused(folder: Path, key: str, value: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["samples"][key] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    loaded = Reference.load(folder, device="cpu")
    with pytest.raises(ReferenceInvalid, match="samples"):
        _ = loaded.samples
