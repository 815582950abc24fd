"""Frames in files: the same bytes as records. Reads files and folders of them, in a stable order."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from hydrophone.schemas.errors import ConfigurationError, FrameInvalid
from hydrophone.schemas.frame import Frame

__all__ = ["frame_paths", "read_frames"]

SUFFIX = ".safetensors"


def frame_paths(places: Iterable[Path]) -> list[Path]:
    """The files meant: a folder stands for all frame files in it. Raises `ConfigurationError` when there are none."""
    paths: list[Path] = []
    for place in places:
        if place.is_dir():
            paths += sorted(place.glob(f"*{SUFFIX}"))
        elif place.is_file():
            paths.append(place)
        else:
            raise ConfigurationError(f"`{place}` is neither a frame file nor a folder of them")
    if not paths:
        raise ConfigurationError(f"no `*{SUFFIX}` file in {', '.join(f'`{p}`' for p in places)}")
    return paths


def read_frames(paths: Iterable[Path]) -> Iterator[Frame]:
    """Raises `FrameInvalid` naming the file."""
    for path in paths:
        try:
            yield Frame.decode(path.read_bytes())
        except FrameInvalid as error:
            raise FrameInvalid(error.reason, f"`{path}`: {error.detail}") from None
