"""Which reference is in force: a pinned one always, else the last announced one whose time has come."""

import shutil
from pathlib import Path

import pytest
from tests.support.processor import small_reference

from hydrophone.detectors import Reference
from hydrophone.schemas.errors import ConfigurationError, ReferenceInvalid
from hydrophone.schemas.operations import ReferencePointer
from hydrophone.streams.catalog import ReferenceCatalog, load_reference

MODEL = "m"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three references of one model."""
    folder = tmp_path_factory.mktemp("references")
    return [small_reference(folder, MODEL, seed=seed) for seed in range(3)]


def pointer(folder: Path, effective_from_ms: int, **changes: str) -> ReferencePointer:
    loaded = Reference.load(folder, device="cpu")
    fields = {"model": MODEL, "version": loaded.id.version, "uri": folder.as_uri(), "sha256": loaded.id.sha256}
    return ReferencePointer.model_validate(fields | changes | {"effective_from_ms": effective_from_ms})


def in_force(catalog: ReferenceCatalog, start_ms: int) -> str | None:
    found = catalog.in_force(MODEL, start_ms)
    return found.id.sha256 if found else None


def test_announced_reference_is_in_force_from_its_time_until_the_next(folders: list[Path]) -> None:
    #   none    | first           | second
    #           100               200
    catalog = ReferenceCatalog(device="cpu")
    first, second = pointer(folders[0], 100), pointer(folders[1], 200)
    catalog.announce(second)
    catalog.announce(first)

    assert [in_force(catalog, t) for t in (99, 100, 199, 200)] == [None, first.sha256, first.sha256, second.sha256]
    assert catalog.contract(MODEL, 99) is None
    contract = catalog.contract(MODEL, 100)
    assert contract is not None
    assert dict(contract.sizes) == {"fc": 4}


def test_of_two_announced_for_one_instant_the_later_announcement_holds(folders: list[Path]) -> None:
    catalog = ReferenceCatalog(device="cpu")
    first, second = pointer(folders[0], 100), pointer(folders[1], 100)
    catalog.announce(first)
    catalog.announce(second)
    assert in_force(catalog, 100) == second.sha256

    catalog.announce(first)
    assert in_force(catalog, 100) == first.sha256


def test_withdrawn_reference_gives_way_to_the_one_before(folders: list[Path]) -> None:
    catalog = ReferenceCatalog(device="cpu")
    first, second = pointer(folders[0], 100), pointer(folders[1], 200)
    catalog.announce(first)
    catalog.announce(second)

    catalog.withdraw(MODEL, second.version)

    assert in_force(catalog, 200) == first.sha256
    assert not catalog.knows(second)
    assert catalog.knows(first)
    assert not catalog.knows(first.model_copy(update={"effective_from_ms": 101}))


def test_pinned_reference_is_in_force_at_all_times_whatever_is_announced(folders: list[Path]) -> None:
    pinned = Reference.load(folders[0], device="cpu")
    catalog = ReferenceCatalog([pinned])
    catalog.announce(pointer(folders[1], 0, uri="file:///nowhere"))

    assert in_force(catalog, 0) == in_force(catalog, 10**12) == pinned.id.sha256
    assert catalog.in_force("another", 0) is None
    assert set(catalog.pinned) == {MODEL}


def test_two_pinned_for_one_model_are_refused(folders: list[Path]) -> None:
    with pytest.raises(ConfigurationError, match="two references are pinned for model `m`"):
        ReferenceCatalog([Reference.load(folder, device="cpu") for folder in folders[:2]])


def test_reference_that_is_not_the_announced_one_is_refused(folders: list[Path], tmp_path: Path) -> None:
    moved = shutil.copytree(folders[1], tmp_path / "moved")
    catalog = ReferenceCatalog(device="cpu")

    for wrong in (
        pointer(folders[0], 0, uri=moved.as_uri()),
        pointer(folders[0], 0, model="another"),
        pointer(folders[0], 0, uri="file:///nowhere"),
        pointer(folders[0], 0, uri="no-such-scheme://bucket/reference"),
    ):
        with pytest.raises(ReferenceInvalid):
            catalog.announce(wrong)
    assert in_force(catalog, 0) is None


def test_reference_outlives_the_folder_it_was_fetched_from(folders: list[Path], tmp_path: Path) -> None:
    moved = shutil.copytree(folders[0], tmp_path / "moved")
    loaded = load_reference(pointer(folders[0], 0, uri=moved.as_uri()), device="cpu")
    shutil.rmtree(moved)

    assert loaded.prepared is not None
    assert loaded.id == Reference.load(folders[0], device="cpu").id
