from pathlib import Path

import numpy as np
import pytest

from hydrophone.schemas import Frame
from hydrophone.schemas.errors import SettingsError
from hydrophone.streams.frame_writer import FrameWriter


def frame_of(rows: int, *, first: int = 0, model: str = "m", layer: str = "a") -> Frame:
    values = np.arange(first, first + rows, dtype=np.float32).reshape(rows, 1)
    return Frame(model, {layer: values}, event_time_ms=np.array(1))


def written(directory: Path) -> list[list[float]]:
    frames = (Frame.decode(path.read_bytes()) for path in sorted(directory.glob("*.safetensors")))
    return [next(iter(frame.layers.values()))[:, 0].tolist() for frame in frames]


def test_small_frames_share_a_file_and_closing_writes_the_rest(tmp_path: Path) -> None:
    with FrameWriter(tmp_path, model="m", batch_rows=4) as writer:
        for first in (0, 2, 4):
            assert writer.publish(frame_of(2, first=first))
        assert written(tmp_path) == [[0, 1, 2, 3]]
    assert written(tmp_path) == [[0, 1, 2, 3], [4, 5]]
    assert writer.close() == 0
    assert (writer.stats.published, writer.stats.delivered, writer.stats.delivered_frames) == (6, 6, 2)


def test_a_large_frame_has_a_file_to_itself(tmp_path: Path) -> None:
    with FrameWriter(tmp_path, model="m", batch_rows=3) as writer:
        writer.publish(frame_of(1))
        writer.publish(frame_of(5, first=10))
        writer.publish(frame_of(1, first=20))
    assert written(tmp_path) == [[0], [10, 11, 12, 13, 14], [20]]


def test_frames_of_another_layout_begin_another_file(tmp_path: Path) -> None:
    with FrameWriter(tmp_path, model="m") as writer:
        writer.publish(frame_of(1))
        writer.publish(frame_of(1, first=5, layer="b"))
    assert written(tmp_path) == [[0], [5]]


def test_numbering_goes_on_after_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        with FrameWriter(tmp_path, model="m") as writer:
            writer.publish(frame_of(1))
    (tmp_path / "m-000041.safetensors").write_bytes(b"somebody else's")
    with FrameWriter(tmp_path, model="m") as writer:
        writer.publish(frame_of(1))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"m-{number:06d}.safetensors" for number in (0, 1, 41, 42)]
    assert (tmp_path / "m-000041.safetensors").read_bytes() == b"somebody else's"


def test_two_writers_of_one_directory_do_not_overwrite_each_other(tmp_path: Path) -> None:
    with FrameWriter(tmp_path, model="m", batch_rows=1) as one, FrameWriter(tmp_path, model="m", batch_rows=1) as other:
        for first in range(3):
            one.publish(frame_of(1, first=first))
            other.publish(frame_of(1, first=10 + first))
    assert sorted(row for rows in written(tmp_path) for row in rows) == [0, 1, 2, 10, 11, 12]


def test_a_half_written_file_of_a_writer_that_died_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".m-000000.safetensors.part").write_bytes(b"half")
    with FrameWriter(tmp_path, model="m") as writer:
        writer.publish(frame_of(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m-000000.safetensors.part", "m-000001.safetensors"]


def test_a_model_id_with_separators_makes_one_safe_name(tmp_path: Path) -> None:
    for model in ("team/net:2", "team_net_2"):
        with FrameWriter(tmp_path, model=model) as writer:
            writer.publish(frame_of(1, model=model))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["team%2Fnet%3A2-000000.safetensors", "team_net_2-000000.safetensors"]


def test_what_is_not_this_model_or_comes_after_closing_is_dropped_and_counted(tmp_path: Path) -> None:
    writer = FrameWriter(tmp_path, model="m")
    assert not writer.publish(frame_of(2, model="other"))
    assert not writer.publish(None)  # type: ignore[arg-type]
    writer.close()
    assert not writer.publish(frame_of(3))
    assert (writer.stats.dropped, writer.stats.dropped_frames) == (5, 3)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_vanishes_loses_rows_with_a_count_and_no_exception(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = FrameWriter(tmp_path / "gone", model="m", batch_rows=2)
    (tmp_path / "gone").rmdir()
    assert writer.publish(frame_of(2))
    assert writer.close() == 2
    assert (writer.stats.failed, writer.stats.failed_frames) == (2, 1)
    assert "2 rows are lost" in caplog.text


def test_rows_are_those_of_the_moment_of_publishing(tmp_path: Path) -> None:
    values = np.zeros((2, 1), np.float32)
    with FrameWriter(tmp_path, model="m") as writer:
        writer.publish(Frame("m", {"a": values}, event_time_ms=np.array(1)))
        values[:] = 7
    assert written(tmp_path) == [[0, 0]]


@pytest.mark.parametrize(("model", "batch_rows"), [("no spaces", 10), ("m", 0)])
def test_a_wrong_setting_is_refused_at_once(tmp_path: Path, model: str, batch_rows: int) -> None:
    with pytest.raises(SettingsError):
        FrameWriter(tmp_path, model=model, batch_rows=batch_rows)
