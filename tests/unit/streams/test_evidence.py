"""A rejecting window's rows outlive the topic; a store that is down costs the evidence and never the score."""

import hashlib
from pathlib import Path

import pytest
from tests.support.frames import gaussian_frame

from hydrophone.schemas.frame import Frame
from hydrophone.streams.evidence import EvidenceStore


def test_rows_are_stored_as_one_frame_file_and_read_back(tmp_path: Path) -> None:
    sample = gaussian_frame(30, 1)

    kept = EvidenceStore(tmp_path.as_uri()).keep(sample, 60_000)

    assert kept is not None
    content = Path(kept.uri.removeprefix("file://")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == kept.sha256
    back = Frame.decode(content)
    assert back.row_origins() == sample.row_origins()
    assert (back.layers["fc"] == sample.layers["fc"]).all()


def test_same_window_has_the_same_file(tmp_path: Path) -> None:
    store = EvidenceStore(f"{tmp_path.as_uri()}/")
    first, second = (store.keep(gaussian_frame(30, 1), 60_000) for _ in range(2))

    assert first == second
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_model_id_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    sample = gaussian_frame(30, 1)
    hostile = Frame("a/../../../b:c@d", sample.layers, event_time_ms=sample.event_time_ms)

    kept = EvidenceStore((tmp_path / "inside").as_uri()).keep(hostile, 0)

    assert kept is not None
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path.parent.parent == tmp_path / "inside"


def test_store_that_is_down_is_counted_and_logged_and_gives_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    failures: list[int] = []

    kept = EvidenceStore((tmp_path / "file").as_uri(), on_failure=lambda: failures.append(1)).keep(
        gaussian_frame(30, 1), 0
    )

    assert kept is None
    assert failures == [1]
    assert "evidence of a window could not be stored" in caplog.text
