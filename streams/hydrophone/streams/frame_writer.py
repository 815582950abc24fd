"""Writes frames to files, so that capturing and scoring need no broker. Same face as the publisher.

A file holds the bytes a record would. How frames are joined is in `batching.py`.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from hydrophone.schemas.errors import SettingsError
from hydrophone.schemas.frame import Frame
from hydrophone.streams.batching import join, layout, owned
from hydrophone.streams.bounded_log import BoundedLog
from hydrophone.streams.frame_sink import SinkStats, Tally, require_model

__all__ = ["FrameWriter"]

SUFFIX: Final = ".safetensors"


class FrameWriter:
    """Frames of `model` as `<model>-<sequence>.safetensors` in `directory`, which is created; names sort by age.

    Never overwrites: numbering goes on after the files that are there, and several writers may share a directory.
    Joins small frames to files of up to `batch_rows` rows; a larger frame has a file to itself. Writes in the caller's
    thread. `publish` does not raise, not even when the disk is full: `stats` and `close` say what was lost.
    """

    def __init__(self, directory: str | Path, *, model: str, batch_rows: int = 1024) -> None:
        self._model = require_model(model)
        if batch_rows < 1:
            raise SettingsError(f"`batch_rows` must be at least 1; got {batch_rows}")
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._batch_rows = batch_rows
        self._stem = quote(self._model, safe="@")  # `/` and `:` are fine in a model id and not in a file name
        self._sequence = self._next_sequence()
        self._log = BoundedLog(logging.getLogger("hydrophone"))
        self._tally = Tally()
        self._lock = Lock()
        self._buffer: list[Frame] = []
        self._is_closed = False

    @property
    def model(self) -> str:
        return self._model

    @property
    def stats(self) -> SinkStats:
        return self._tally.snapshot()

    def publish(self, frame: Frame) -> bool:
        """False when the frame was dropped: another model's, or the writer is closed. Copies the arrays."""
        try:
            rows = len(frame)
        except TypeError:  # no frame at all, as `offer` will find
            rows = 0
        return self.offer(rows, lambda: owned(frame))

    def offer(self, rows: int, build: Callable[[], Frame]) -> bool:
        """As `publish`; `build` is called before this returns."""
        try:
            frame = build()
            with self._lock:
                if frame.model == self._model and not self._is_closed:
                    self._tally.add("published", len(frame))
                    self._keep(frame)
                    return True
            self._log.say("dropped", "a writer for `%s` drops frames of others, and all once closed", self._model)
        except Exception as error:  # noqa: BLE001 - nothing may reach the request path
            self._log.say("unusable", "a frame could not be taken: %r", error)
        self._tally.add("dropped", rows)
        return False

    def close(self, timeout_s: float = 10) -> int:  # noqa: ARG002 - the publisher's face; a file system has no timeout
        """Write what is left; give back how many accepted rows are in no file. May be called again."""
        with self._lock:
            self._is_closed = True
            self._flush()
        stats = self.stats
        return stats.published - stats.delivered

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, frame: Frame) -> None:
        buffered = sum(map(len, self._buffer))
        if self._buffer and (buffered + len(frame) > self._batch_rows or layout(frame) != layout(self._buffer[0])):
            self._flush()
        self._buffer.append(frame)
        if sum(map(len, self._buffer)) >= self._batch_rows:
            self._flush()

    def _flush(self) -> None:
        frames, self._buffer = self._buffer, []
        if not frames:
            return
        rows = sum(map(len, frames))
        try:
            self._write(join(frames).encode())
        except Exception as error:  # noqa: BLE001 - a full disk must not reach the request path
            self._tally.add("failed", rows)
            self._log.say("write", "%d rows are lost: %r", rows, error)
        else:
            self._tally.add("delivered", rows)

    def _write(self, data: bytes) -> None:
        """Under the next free number, whole or not at all.

        The temporary file is created exclusively, so it also keeps other writers away from its number.
        """
        while True:
            target = self._directory / f"{self._stem}-{self._sequence:06d}{SUFFIX}"
            temporary = target.with_name(f".{target.name}.part")
            self._sequence += 1
            try:
                file = temporary.open("xb")
            except FileExistsError:
                continue
            try:
                with file:
                    file.write(data)
                if not target.exists():
                    temporary.rename(target)
                    return
            finally:
                temporary.unlink(missing_ok=True)

    def _next_sequence(self) -> int:
        pattern = re.compile(re.escape(self._stem) + r"-(\d{6,})" + re.escape(SUFFIX))
        names = (pattern.fullmatch(path.name) for path in self._directory.iterdir())
        return max((int(match[1]) for match in names if match), default=-1) + 1
