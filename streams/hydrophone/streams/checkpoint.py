"""What is committed beside an offset: enough to rebuild a partition by reading on from it.

Kafka keeps a text with every committed offset and writes both in one transaction with the outputs; that makes it a
checkpoint slot without a changelog (docs/decisions/0004-the-checkpoint-is-offset-metadata.md). Facts of a model live in
the `state` topic.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hydrophone.schemas.errors import ConfigurationError

__all__ = ["Checkpoint", "Pending"]

LIMIT: Final = 3_500
"""Characters; brokers refuse more than 4,096 by default (`offset.metadata.max.bytes`)."""


class Pending(NamedTuple):
    """Rows of a model that are in no window, since its last score: its next one tells of them."""

    late: int = 0
    quarantined: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The partition was processed up to `position`; the committed offset is where a replay begins, at or before it."""

    window_ms: int
    watermark_ms: int | None
    position: int
    pending: Mapping[str, Pending] = field(default_factory=dict)

    def encode(self) -> str:
        """At most `LIMIT` characters: with very many models with pending counts, those are left out."""
        fields = {"v": 1, "s": self.window_ms, "w": self.watermark_ms, "p": self.position}
        text = json.dumps(fields | ({"n": dict(self.pending)} if self.pending else {}), separators=(",", ":"))
        return text if len(text) <= LIMIT else json.dumps(fields, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | None, *, window_ms: int) -> "Checkpoint | None":
        """None where nothing was written. Raises `ConfigurationError`: another program's, or another window length."""
        if not text:
            return None
        try:
            fields = json.loads(text)
            if fields["v"] != 1:
                raise ValueError(f"version {fields['v']}")
            pending = {model: Pending(*map(int, counts)) for model, counts in fields.get("n", {}).items()}
            found = cls(int(fields["s"]), None if fields["w"] is None else int(fields["w"]), int(fields["p"]), pending)
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
