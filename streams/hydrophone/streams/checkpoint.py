"""What is committed beside an offset: enough to rebuild a partition by reading on from it.

Kafka keeps a text with every committed offset and writes both in one transaction with the outputs; that makes it a
checkpoint slot without a changelog (docs/decisions/0004-the-checkpoint-is-offset-metadata.md). Facts of a model live in
the `state` topic.
"""

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from hydrophone.schemas.errors import ConfigurationError

__all__ = ["Checkpoint", "MergeCheckpoint", "Pending", "Snapshots"]

LIMIT: Final = 3_500
"""Characters; brokers refuse more than 4,096 by default (`offset.metadata.max.bytes`)."""

SHORT: Final = (",", ":")


class Pending(NamedTuple):
    """Rows of a model that are in no window, since its last score: its next one tells of them."""

    late: int = 0
    quarantined: int = 0
    rejected: int = 0


class Snapshots(NamedTuple):
    """The committed offset counts on these snapshots of open windows; without them a replay begins at `replay_from`."""

    windows: int
    digest: str
    replay_from: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The partition was processed up to `position`; the committed offset is where a replay begins, at or before it."""

    window_ms: int
    watermark_ms: int | None
    position: int
    pending: Mapping[str, Pending] = field(default_factory=dict)
    snapshots: Snapshots | None = None

    def encode(self) -> str:
        """At most `LIMIT` characters: with very many models with pending counts, those are left out.

        The version is 2 where snapshots are counted on: who does not know of them must not read on from there.
        """
        fields: dict[str, Any] = {"v": 1, "s": self.window_ms, "w": self.watermark_ms, "p": self.position}
        if self.snapshots is not None:
            fields |= {"v": 2, "h": self.snapshots}
        text = json.dumps(fields | ({"n": dict(self.pending)} if self.pending else {}), separators=SHORT)
        return text if len(text) <= LIMIT else json.dumps(fields, separators=SHORT)

    @classmethod
    def decode(cls, text: str | None, *, window_ms: int) -> "Checkpoint | None":
        """None where nothing was written. Raises `ConfigurationError`: another program's, or another window length."""
        return _decoded(text, window_ms, cls._of, versions=(1, 2))

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> "Checkpoint":
        pending = {model: Pending(*map(int, counts)) for model, counts in fields.get("n", {}).items()}
        watermark, snapshots = fields["w"], None
        if fields["v"] == 2:
            windows, digest, replay_from = fields["h"]
            snapshots = Snapshots(int(windows), str(digest), int(replay_from))
        return cls(
            int(fields["s"]), None if watermark is None else int(watermark), int(fields["p"]), pending, snapshots
        )


@dataclass(frozen=True, slots=True)
class MergeCheckpoint:
    """A partition of `partials` was processed up to `position`, and windows up to `closed_ms` are closed.

    `watermarks` by partition of `activations`, all of them ends of windows; `partitions` of them are waited for.
    """

    window_ms: int
    position: int
    closed_ms: int | None
    partitions: int
    watermarks: Mapping[int, int]

    def encode(self) -> str:
        """At most `LIMIT` characters: in windows since the earliest. Of so many partitions that they do not fit none
        is told; each tells its time again within a window."""
        size, earliest = self.window_ms, min(self.watermarks.values(), default=0)
        ahead = {n: (w - earliest) // size for n, w in self.watermarks.items()}
        fields = {"v": 1, "s": size, "p": self.position, "c": self.closed_ms, "n": self.partitions, "e": earliest}
        text = json.dumps(fields | {"w": [ahead.get(n) for n in range(max(ahead, default=-1) + 1)]}, separators=SHORT)
        return text if len(text) <= LIMIT else json.dumps(fields | {"w": []}, separators=SHORT)

    @classmethod
    def decode(cls, text: str | None, *, window_ms: int) -> "MergeCheckpoint | None":
        """As `Checkpoint.decode`."""
        return _decoded(text, window_ms, cls._of)

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> "MergeCheckpoint":
        size, earliest, closed = int(fields["s"]), int(fields["e"]), fields["c"]
        watermarks = {n: earliest + int(ahead) * size for n, ahead in enumerate(fields["w"]) if ahead is not None}
        return cls(size, int(fields["p"]), None if closed is None else int(closed), int(fields["n"]), watermarks)


class _Sized(Protocol):
    @property
    def window_ms(self) -> int: ...


C = TypeVar("C", bound=_Sized)


def _decoded(
    text: str | None, window_ms: int, build: Callable[[dict[str, Any]], C], versions: Container[int] = (1,)
) -> C | None:
    if not text:
        return None
    try:
        fields = json.loads(text)
        if fields["v"] not in versions:
            raise ValueError(f"version {fields['v']}")
        found = build(fields)
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the group's committed offset carries metadata of another program ({error}): {text!r:.80}; "
            "choose another `--group`"
        ) from None
    if found.window_ms != window_ms:
        raise ConfigurationError(
            f"the group committed windows of {found.window_ms} ms and this processor has {window_ms} ms: windows "
            "would be doubled or lost; choose another `--group`, or the former window length"
        )
    return found
