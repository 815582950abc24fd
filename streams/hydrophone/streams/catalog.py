"""Which reference is in force for a model at an event time, pinned or announced. The topic is read elsewhere."""

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

import fsspec

from hydrophone.detectors import Reference
from hydrophone.schemas.errors import ConfigurationError, ReferenceInvalid
from hydrophone.schemas.operations import ReferencePointer
from hydrophone.streams.contract import Contract

__all__ = ["ReferenceCatalog", "load_reference"]

log = logging.getLogger("hydrophone")


class ReferenceCatalog:
    """A pinned reference is in force for its model at all times; else the last one announced for the instant.

    `judges_rows`: where a reference has per-sample detectors, its contract says that rows are judged as they arrive.
    """

    def __init__(self, pinned: Iterable[Reference] = (), *, device: str = "auto", judges_rows: bool = False) -> None:
        self._device, self._judges_rows = device, judges_rows
        self._pinned: dict[str, Reference] = {}
        self._announced: dict[str, dict[str, tuple[int, Reference]]] = {}
        self._contracts: dict[str, Contract] = {}
        for reference in pinned:
            if reference.manifest.model in self._pinned:
                raise ConfigurationError(
                    f"two references are pinned for model `{reference.manifest.model}`; pin one, or announce both"
                )
            self._pinned[reference.manifest.model] = reference

    @property
    def pinned(self) -> dict[str, Reference]:
        return dict(self._pinned)

    def announce(self, pointer: ReferencePointer) -> None:
        """Load and verify an announced reference. Raises `ReferenceInvalid`; then nothing changes."""
        if pointer.model in self._pinned:
            return
        reference = load_reference(pointer, device=self._device)
        _ = reference.samples  # now, not when its first row comes: what cannot be read is refused here
        versions = self._announced.setdefault(pointer.model, {})
        versions.pop(pointer.version, None)
        versions[pointer.version] = (pointer.effective_from_ms, reference)
        log.info("reference announced", extra={"model": pointer.model, "version": pointer.version})

    def knows(self, pointer: ReferencePointer) -> bool:
        """The very same announcement was taken in before."""
        entry = self._announced.get(pointer.model, {}).get(pointer.version)
        return entry is not None and (entry[0], entry[1].id.sha256) == (pointer.effective_from_ms, pointer.sha256)

    def withdraw(self, model: str, version: str) -> None:
        """A tombstone was written for this version."""
        self._announced.get(model, {}).pop(version, None)

    def in_force(self, model: str, window_start_ms: int) -> Reference | None:
        """The one whose effective time is the latest at or before the window's start; of equals, the last announced."""
        if model in self._pinned:
            return self._pinned[model]
        candidates = [entry for entry in self._announced.get(model, {}).values() if entry[0] <= window_start_ms]
        return max(reversed(candidates), key=lambda entry: entry[0])[1] if candidates else None

    def find(self, model: str, sha256: str) -> Reference | None:
        """Any reference of the model that is known, in force or not, by its hash."""
        known = [entry[1] for entry in self._announced.get(model, {}).values()]
        known += [self._pinned[model]] if model in self._pinned else []
        return next((reference for reference in known if reference.id.sha256 == sha256), None)

    def contract(self, model: str, window_start_ms: int) -> Contract | None:
        """What frames of the model must bring, for `step`."""
        reference = self.in_force(model, window_start_ms)
        if reference is None:
            return None
        sha256 = reference.id.sha256
        if sha256 not in self._contracts:
            manifest = reference.manifest
            sizes = {name: layer.dimensions for name, layer in manifest.layers.items()}
            is_judged = self._judges_rows and reference.samples is not None
            self._contracts[sha256] = Contract(sizes, manifest.has_predicted, manifest.output_classes, is_judged)
        return self._contracts[sha256]


def load_reference(pointer: ReferencePointer, *, device: str = "auto") -> Reference:
    """Fetch a reference by its URI and check that it is the one announced. Raises `ReferenceInvalid`."""
    with tempfile.TemporaryDirectory(prefix="hydrophone-reference-") as folder:
        try:
            filesystem, path = fsspec.core.url_to_fs(pointer.uri)
            filesystem.get(path.rstrip("/") + "/", folder + "/", recursive=True)
        except Exception as error:  # fsspec's back ends raise errors of their own
            raise ReferenceInvalid(f"`{pointer.uri}` cannot be fetched: {error}") from error
        reference = Reference.load(Path(folder), device=device)
    if reference.id.sha256 != pointer.sha256 or reference.manifest.model != pointer.model:
        raise ReferenceInvalid(
            f"`{pointer.uri}` holds reference {reference.id.sha256[:12]} of model `{reference.manifest.model}`; "
            f"announced was {pointer.sha256[:12]} of `{pointer.model}`"
        )
    return reference
