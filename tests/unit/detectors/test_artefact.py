"""A reference on disk: what was saved is what is loaded, or the file that was changed is named."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.frames import class_frame, gaussian_frame, plain_frame

from hydrophone.detectors.artefact import ARRAYS, MANIFEST, Manifest, ReferenceArtefact, arrays_bytes
from hydrophone.detectors.reference import Reference, fit_reference
from hydrophone.schemas.errors import ReferenceInvalid

WINDOW = class_frame(60, 9, shares=[0.7, 0.3], shift=0.2)


def reference(seed: int = 0) -> Reference:
    return fit_reference([class_frame(300, 1, shares=[0.7, 0.3])], permutations=99, seed=seed, device="cpu")


def rewrite(folder: Path, **changes: object) -> None:
    """Change the manifest as somebody would who owns the folder."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_loaded_reference_gives_the_same_answer(tmp_path: Path) -> None:
    saved = reference()
    saved.save(tmp_path / "reference")
    loaded = Reference.load(tmp_path / "reference", device="cpu")
    assert loaded.id == saved.id
    assert loaded.test(WINDOW) == saved.test(WINDOW)


def test_a_folder_holds_json_and_safetensors_and_nothing_that_can_run(tmp_path: Path) -> None:
    reference().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [ARRAYS, MANIFEST]
    assert (tmp_path / ARRAYS).suffix == ".safetensors"
    json.loads((tmp_path / MANIFEST).read_text())


def test_half_precision_stays_half(tmp_path: Path) -> None:
    values = gaussian_frame(90, 0).layers["fc"].astype(np.float16)
    fit_reference([plain_frame({"fc": values})], permutations=99, device="cpu").save(tmp_path)
    assert ReferenceArtefact.load(tmp_path).arrays["reference.fc"].dtype == np.float16


@pytest.mark.parametrize("at", [0, 8, 300, -1])
def test_a_flipped_byte_is_refused_and_the_file_named(tmp_path: Path, at: int) -> None:
    reference().save(tmp_path)
    content = bytearray((tmp_path / ARRAYS).read_bytes())
    content[at] ^= 1
    (tmp_path / ARRAYS).write_bytes(content)
    with pytest.raises(ReferenceInvalid, match=rf"{ARRAYS}` was changed"):
        Reference.load(tmp_path)


def test_a_changed_manifest_is_another_reference(tmp_path: Path) -> None:
    saved = reference()
    saved.save(tmp_path)
    rewrite(tmp_path, alpha=0.5)
    assert Reference.load(tmp_path).id.sha256 != saved.id.sha256


def test_spaces_in_a_manifest_do_not_make_it_another(tmp_path: Path) -> None:
    saved = reference()
    saved.save(tmp_path)
    rewrite(tmp_path)
    assert Reference.load(tmp_path).id == saved.id


def test_a_reference_is_saved_twice_but_never_over_another(tmp_path: Path) -> None:
    reference().save(tmp_path)
    before = (tmp_path / ARRAYS).read_bytes()
    reference().save(tmp_path)
    with pytest.raises(ReferenceInvalid, match="already holds another reference"):
        reference(seed=1).save(tmp_path)
    assert (tmp_path / ARRAYS).read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        "../arrays.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        ".hidden.safetensors",
        "a\\b.safetensors",
        "x\0.safetensors",
        "code.pkl",
        "",
    ],
)
def test_a_manifest_that_points_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    reference().save(tmp_path)
    rewrite(tmp_path, files={name: "a" * 64})
    with pytest.raises(ReferenceInvalid, match="files of its own folder alone"):
        Reference.load(tmp_path)


@pytest.mark.parametrize("text", ["", "null", "{}", "[" * 100_000, "\ud800", "{'a': 1}"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    reference().save(tmp_path)
    (tmp_path / MANIFEST).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ReferenceInvalid, match=rf"{MANIFEST}` cannot be read"):
        Reference.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"format": "2"}, {"surprise": 1}, {"permutations": 0}, {"alpha": 0}, {"layers": {"fc": {"dimensions": 0}}}],
)
def test_a_manifest_that_breaks_a_rule_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    reference().save(tmp_path)
    rewrite(tmp_path, **changes)
    with pytest.raises(ReferenceInvalid, match=rf"{MANIFEST}` cannot be read"):
        Reference.load(tmp_path)


def test_an_empty_folder_is_no_reference(tmp_path: Path) -> None:
    with pytest.raises(ReferenceInvalid, match=r"holds no `manifest.json`.*hydrophone reference fit"):
        Reference.load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    reference().save(tmp_path)
    (tmp_path / ARRAYS).unlink()
    with pytest.raises(ReferenceInvalid, match=rf"{ARRAYS}` cannot be read"):
        Reference.load(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "misshapen", "no tensors"])
def test_arrays_that_do_not_bear_out_the_manifest_are_refused(tmp_path: Path, fault: str) -> None:
    reference().save(tmp_path)
    arrays = dict(ReferenceArtefact.load(tmp_path).arrays)
    if fault == "missing":
        del arrays["fit.fc.mean"]
    arrays["reference.fc"] = arrays["reference.fc"][1:]
    content = b"no tensors" if fault == "no tensors" else arrays_bytes(arrays)
    (tmp_path / ARRAYS).write_bytes(content)
    rewrite(tmp_path, files={ARRAYS: hashlib.sha256(content).hexdigest()})
    with pytest.raises(ReferenceInvalid, match=f"holds no readable `{ARRAYS}`"):
        Reference.load(tmp_path)


def test_equal_arrays_give_equal_bytes() -> None:
    arrays = {"b": np.arange(6).reshape(2, 3), "a": np.ones(2, np.float16)}
    again = dict(reversed([(name, array.copy(order="F")) for name, array in arrays.items()]))
    assert arrays_bytes(arrays) == arrays_bytes(again)


def test_a_reference_without_blocks_is_named_as_before_there_were_any() -> None:
    manifest = reference()._artefact.manifest
    assert "block_rows" not in manifest.text()
    blocks = manifest.model_copy(update={"block_rows": 20})
    assert Manifest.model_validate_json(blocks.text()) == blocks
    assert blocks.sha256 != manifest.sha256
