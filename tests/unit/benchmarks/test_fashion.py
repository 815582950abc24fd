"""Splits of Fashion-MNIST: what is fitted, calibrated, served and attacked never shares an image."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from benchmarks import fashion
from benchmarks.fashion import SHA256, Rows, split

SIZES = {"train": 50_000, "fit": 5_000, "calibrate": 5_000, "clean": 5_000, "candidates": 5_000}
OF_TRAIN_FILE = ("train", "fit", "calibrate")
OF_TEST_FILE = ("clean", "candidates")


def rows_of(rows: Rows, name: str) -> np.ndarray:
    return getattr(rows, name)


@pytest.mark.parametrize("names", [OF_TRAIN_FILE, OF_TEST_FILE])
def test_no_image_is_in_two_splits(names: tuple[str, ...]) -> None:
    rows = split()
    for one, other in itertools.combinations(names, 2):
        assert np.intersect1d(rows_of(rows, one), rows_of(rows, other)).size == 0, (one, other)


@pytest.mark.parametrize(("names", "file_rows"), [(OF_TRAIN_FILE, 60_000), (OF_TEST_FILE, 10_000)])
def test_every_image_of_a_file_is_in_a_split(names: tuple[str, ...], file_rows: int) -> None:
    rows = split()
    together = np.sort(np.concatenate([rows_of(rows, name) for name in names]))
    assert np.array_equal(together, np.arange(file_rows))


def test_splits_have_the_sizes_of_the_protocol() -> None:
    rows = split()
    assert {name: len(rows_of(rows, name)) for name in SIZES} == SIZES


def test_file_order_is_shuffled_away() -> None:
    """Each split spans its file: a slice of it would keep the order of the file."""
    rows = split()
    for name, file_rows in [*((n, 60_000) for n in OF_TRAIN_FILE), *((n, 10_000) for n in OF_TEST_FILE)]:
        thirds = np.histogram(rows_of(rows, name), bins=3, range=(0, file_rows))[0] / len(rows_of(rows, name))
        assert np.all(np.abs(thirds - 1 / 3) < 0.03), (name, thirds)


def test_the_seed_alone_decides_the_splits() -> None:
    assert np.array_equal(split(7).fit, split(7).fit)
    assert not np.array_equal(split(7).fit, split(8).fit)


def test_a_file_of_other_bytes_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SHA256:
        (tmp_path / name).write_bytes(b"not the file")
    monkeypatch.setenv(fashion.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"images.*sha256"):
        fashion.find_files()
