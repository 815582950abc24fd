"""Ids and labels of rows, for people: a column of texts that is read when first looked at, which is seldom.

Most rows of a stream are tested and forgotten, and reading the ids of all would cost as much as the rest of decoding.
Whether a list *is* a list of texts is settled at once all the same. What the texts mean does not live here.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from hydrophone.schemas.columns import Column, needed, own_rows
from hydrophone.schemas.errors import FrameInvalid

__all__ = ["Texts", "are_texts", "read_texts"]

_NEEDS_A_PARSER: Final = bytes(range(32)) + b"\\"
"""Control characters, which JSON forbids in a string, and the beginning of every escape."""

Text = str | None
Part = str | Sequence[Text]
"""Texts, or plain JSON of them that nobody has looked at yet."""


class Texts(Column[Text]):
    """N texts: number i is entry `rows[i]` of part `places[i]`."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[Part], places: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self.parts, self.places, self.rows = parts, places, rows

    @classmethod
    def of(cls, values: Sequence[Text]) -> "Texts":
        return values if isinstance(values, Texts) else cls([values], *own_rows(len(values)))

    @classmethod
    def repeated(cls, value: Text, count: int) -> "Texts":
        nowhere = own_rows(count)[0]
        return cls([(value,)], nowhere, nowhere)

    @classmethod
    def concat(cls, columns: Sequence["Texts"]) -> "Texts":
        """All texts of the columns, in order."""
        parts: list[Part] = []
        places = []
        for column in columns:
            places.append(column.places + len(parts))
            parts += column.parts
        return cls(parts, np.concatenate(places), np.concatenate([column.rows for column in columns]))

    def take(self, index: NDArray[np.integer[Any]] | slice) -> "Texts":
        """Some texts, in the order of `index`; what none of them needs is let go."""
        return Texts(*needed(self.parts, self.places[index]), self.rows[index])

    @overload
    def __getitem__(self, index: int) -> Text: ...
    @overload
    def __getitem__(self, index: slice) -> "Texts": ...
    def __getitem__(self, index: int | slice) -> "Text | Texts":
        if isinstance(index, slice):
            return self.take(index)
        return self._read(int(self.places[index]))[int(self.rows[index])]

    def __iter__(self) -> Iterator[Text]:
        return (self._read(place)[row] for place, row in zip(self.places.tolist(), self.rows.tolist(), strict=True))

    def _read(self, place: int) -> Sequence[Text]:
        part = self.parts[place]
        if isinstance(part, str):
            part = self.parts[place] = from_json(part, cache_strings="none")  # no two are alike
        return part


def read_texts(name: str, text: str, *, nullable: bool) -> Sequence[Any]:
    """The column that `text`, a JSON list, holds. Raises `FrameInvalid` for anything but strings (or nulls)."""
    count = _plain_count(text)
    if count:
        return Texts([text], *own_rows(count))
    try:
        values = from_json(text, cache_strings="none")
    except ValueError:
        values = None
    if not isinstance(values, list) or not are_texts(values, nullable=nullable):
        raise FrameInvalid(f"bad_{name}", f"`{name}` must be a JSON list of strings{' or nulls' if nullable else ''}")
    return values


def are_texts(values: Sequence[Any], *, nullable: bool) -> bool:
    """By the few types that occur, not value by value: this runs for every frame."""
    if isinstance(values, Texts):
        return True
    return all(issubclass(kind, str) or (nullable and kind is type(None)) for kind in set(map(type, values)))


def _plain_count(text: str) -> int:
    """How many strings a JSON list of strings holds, written without spaces or escapes; 0 for any other text.

    Between the first quote and the last, such a list has quotes only in groups of `","`, and what has no others is one.
    """
    if len(text) < 4 or not (text.startswith('["') and text.endswith('"]')):
        return 0
    inner = text[2:-2]
    between = inner.count('","')
    raw = inner.encode()
    is_plain = inner.count('"') == 2 * between and len(raw.translate(None, _NEEDS_A_PARSER)) == len(raw)
    return between + 1 if is_plain else 0
