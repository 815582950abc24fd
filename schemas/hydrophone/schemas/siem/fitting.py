"""Keeps an event under a number of bytes: lists and texts are cut until it fits, and the event says so."""

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json

from hydrophone.schemas.incidents import Finding

__all__ = ["EVENT_LIMIT", "Document", "document", "encoded", "fitted"]

Document = dict[str, Any]
"""What JSON can say: finite numbers, texts that UTF-8 has bytes for, and no entry without a value."""

EVENT_LIMIT: Final = 32_000
"""Bytes of a JSON event. Receivers differ; what is larger than this is cut by some."""

CUTS: Final = ((64, 2_000), (32, 1_000), (16, 500), (8, 300), (4, 200), (2, 100), (1, 80), (0, 60))
"""Most entries of a list, most characters of a text. The last leaves only what is bounded by its own rules."""

BOUNDED: Final = frozenset({"dedup_key", "model", "tenant", "sha256", "url"})
"""Useless in part, and short by the rules of their own fields."""

T = TypeVar("T")


def encoded(value: Document | list[Document]) -> bytes:
    """As it travels."""
    return to_json(value)


def document(finding: Finding, render: Callable[[Finding, int | None], Document]) -> Document:
    """The rendering that fits `EVENT_LIMIT`; see `fitted`."""
    return fitted(finding, lambda shown, size: _sound(render(shown, size)), EVENT_LIMIT, encoded)


def fitted(
    finding: Finding, render: Callable[[Finding, int | None], T], limit: int, as_bytes: Callable[[T], bytes]
) -> T:
    """`render(finding, None)` if it fits; else of a shorter finding, with how many bytes there would have been."""
    whole = render(finding, None)
    size = len(as_bytes(whole))
    if size <= limit:
        return whole
    shorter = whole
    for items, characters in CUTS:
        shorter = render(_cut(finding, items, characters), size)
        if len(as_bytes(shorter)) <= limit:
            break
    return shorter


def _cut(value: Any, items: int, characters: int) -> Any:
    """The same value with shorter lists and texts. Not validated anew: ids go on naming what they named."""
    if isinstance(value, BaseModel):
        fields = {name: entry for name, entry in value if name not in BOUNDED}
        return value.model_copy(update={name: _cut(entry, items, characters) for name, entry in fields.items()})
    if isinstance(value, tuple):
        return tuple(_cut(entry, items, characters) for entry in value[:items])
    if isinstance(value, str) and len(value) > characters:
        return value[: characters - 1] + "…"
    return value


def _sound(value: Any) -> Any:
    """The value as a `Document` or a part of one."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, dict):
        entries = ((name, _sound(entry)) for name, entry in value.items())
        return {name: entry for name, entry in entries if entry not in (None, [], {})}
    if isinstance(value, list | tuple):
        return [_sound(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
