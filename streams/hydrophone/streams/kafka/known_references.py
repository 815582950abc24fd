"""Finds the very reference a score names, in folders or on the `references` topic. Nothing is tested here."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from hydrophone.detectors import Reference
from hydrophone.schemas.errors import ConfigurationError, ReferenceInvalid
from hydrophone.schemas.operations import ReferencePointer
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.contract import Contract
from hydrophone.streams.kafka.announcements import standing
from hydrophone.streams.kafka.clients import Properties

__all__ = ["KnownReferences"]


class KnownReferences:
    """References from folders; those announced for a model are fetched the first time they are asked for."""

    def __init__(self, folders: Sequence[Path], *, kafka: Properties | None, topic: str, device: str) -> None:
        self._folders = {r.id.sha256: r for r in (Reference.load(folder, device=device) for folder in folders)}
        self._kafka, self._topic, self._device = kafka, topic, device
        self._pointers: list[ReferencePointer] | None = None
        self._announced: dict[str, ReferenceCatalog] = {}
        self._failures: dict[str, str] = {}

    def of(self, score: WindowScore) -> Reference | None:
        """The reference of a score, None for one without. Raises `ConfigurationError` when it cannot be had."""
        wanted = score.reference
        if wanted is None:
            return None
        found = self._folders.get(wanted.sha256)
        if found is None and self._kafka is not None:
            found = self._catalog(score.model).find(score.model, wanted.sha256)
        if found is None or found.id != wanted or found.manifest.model != score.model:
            searched = [f"{r.manifest.model}@{r.id.version} ({r.id.sha256[:12]})" for r in self._folders.values()]
            searched += [f"`{self._topic}`"] if self._kafka is not None else []
            failed = self._failures.get(wanted.sha256)
            raise ConfigurationError(
                f"score `{score.id}` was made with reference {score.model}@{wanted.version} ({wanted.sha256[:12]}), "
                f"which is not among {', '.join(searched) or 'any given'}{f' ({failed})' if failed else ''}; give its "
                "folder with `--reference DIR`, or `--bootstrap HOST:PORT` where it is announced"
            )
        return found

    def contract_of(self, reference: Reference | None) -> Contract | None:
        return None if reference is None else ReferenceCatalog([reference]).contract(reference.manifest.model, 0)

    def catalog_of(self, model: str, reference: Reference | None) -> ReferenceCatalog | None:
        """What was in force in the model's other windows, where it was announced; None where a folder was pinned."""
        if self._kafka is None or (reference is not None and reference.id.sha256 in self._folders):
            return None
        return self._catalog(model)

    def _catalog(self, model: str) -> ReferenceCatalog:
        if model not in self._announced:
            catalog = self._announced[model] = ReferenceCatalog(device=self._device)
            for pointer in self._read():
                if pointer.model == model:
                    try:
                        catalog.announce(pointer)
                    except ReferenceInvalid as error:
                        self._failures[pointer.sha256] = str(error)
        return self._announced[model]

    def _read(self) -> list[ReferencePointer]:
        if self._pointers is None:
            assert self._kafka is not None, "asked only where there is a broker"
            values = standing(self._kafka, self._topic).values()
            self._pointers = [pointer for pointer in map(_pointer, values) if pointer is not None]
        return self._pointers


def _pointer(value: bytes) -> ReferencePointer | None:
    """None for what no processor could read either."""
    try:
        return ReferencePointer.model_validate_json(value)
    except ValidationError:
        return None
