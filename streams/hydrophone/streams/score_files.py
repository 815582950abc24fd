"""Scores in files: one JSON object a line, as `hydrophone tail scores --json` prints them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.score import WindowScore

__all__ = ["read_scores"]


def read_scores(paths: Iterable[Path]) -> Iterator[WindowScore]:
    """Every score of every file, in order. Raises `ConfigurationError` naming file, line and what is wrong with it."""
    for path in paths:
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"`{path}` cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _score(path, number, line)


def _score(path: Path, number: int, line: str) -> WindowScore:
    try:
        return WindowScore.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        raise ConfigurationError(
            f"`{path}` line {number} is no score: {where}: {first['msg']}; write them with "
            "`hydrophone tail scores --json`"
        ) from None
