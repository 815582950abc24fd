"""Follows the `references` topic and keeps the catalog of references true to it."""

import logging
from typing import Final

from pydantic import ValidationError

from hydrophone.schemas.errors import ReferenceInvalid
from hydrophone.schemas.operations import ReferencePointer
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.kafka.announcements import Announcements, standing
from hydrophone.streams.kafka.clients import Properties

__all__ = ["ReferenceFeed"]

log = logging.getLogger("hydrophone")

RETRY_MS: Final = 5_000


class ReferenceFeed:
    """Announcements in order, loaded before they come into force.

    A reference that cannot be loaded blocks its model: records of it wait, because testing them against another
    reference would be wrong in silence. It is tried again every few seconds.
    """

    def __init__(self, kafka: Properties, topic: str, catalog: ReferenceCatalog) -> None:
        self._catalog = catalog
        self._unloadable: dict[str, tuple[ReferencePointer, str]] = {}
        self._tried_ms = 0
        for key, value in standing(kafka, topic).items():
            self._take(key, value)
        self._announcements = Announcements(kafka, topic)

    @property
    def blocked(self) -> dict[str, tuple[ReferencePointer, str]]:
        """Models whose announced reference cannot be loaded, and why."""
        return {pointer.model: (pointer, reason) for pointer, reason in self._unloadable.values()}

    def poll(self, now_ms: int) -> None:
        """Take in what was announced since, and try again what failed."""
        for key, value in self._announcements.poll():
            self._take(key, value)
        if self._unloadable and now_ms - self._tried_ms >= RETRY_MS:
            self._tried_ms = now_ms
            for pointer, _ in list(self._unloadable.values()):
                self._announce(pointer)

    def _take(self, key: bytes, value: bytes | None) -> None:
        name = key.decode(errors="replace")
        if value is None:
            model, _, version = name.rpartition("@")
            self._catalog.withdraw(model, version)
            self._unloadable.pop(name, None)
            return
        try:
            pointer = ReferencePointer.model_validate_json(value)
        except ValidationError as error:
            log.warning("an announcement of a reference cannot be read: %s", error, extra={"key": name})
            return
        if pointer.model in self._catalog.pinned:
            return
        if self._catalog.knows(pointer):
            self._unloadable.pop(pointer.key, None)
        else:
            self._announce(pointer)

    def _announce(self, pointer: ReferencePointer) -> None:
        try:
            self._catalog.announce(pointer)
            self._unloadable.pop(pointer.key, None)
        except ReferenceInvalid as error:
            log.warning("a reference cannot be loaded: %s", error, extra={"model": pointer.model})
            self._unloadable[pointer.key] = (pointer, str(error))

    def close(self) -> None:
        self._announcements.close()
