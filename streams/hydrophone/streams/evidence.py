"""The rows of a rejecting window as one frame file, so that evidence outlives the topic. Written and read by fsspec."""

import hashlib
import logging
from collections.abc import Callable

import fsspec

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.score import Evidence

__all__ = ["EvidenceStore", "fetch_evidence"]

log = logging.getLogger("hydrophone")


class EvidenceStore:
    """A folder at any place fsspec knows. The same window always has the same file name: a replay overwrites itself."""

    def __init__(self, uri: str, *, on_failure: Callable[[], None] = lambda: None) -> None:
        self._uri = uri.rstrip("/")
        self._on_failure = on_failure

    def keep(self, sample: Frame, start_ms: int) -> Evidence | None:
        """Store the rows. A store that is down costs the evidence, never the score: it is logged and counted."""
        content = sample.encode()
        digest = hashlib.sha256(content).hexdigest()
        safe_model = "".join(c if c.isalnum() or c in "._-" else "_" for c in sample.model)
        uri = f"{self._uri}/{safe_model}/{start_ms}-{digest[:16]}.safetensors"
        try:
            filesystem, path = fsspec.core.url_to_fs(uri)
            filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            with filesystem.open(path, "wb") as file:
                file.write(content)
        except Exception:
            log.exception("evidence of a window could not be stored", extra={"uri": uri})
            self._on_failure()
            return None
        return Evidence(uri=uri, sha256=digest)


def fetch_evidence(evidence: Evidence) -> tuple[bytes, str]:
    """The file's bytes and their sha256 as it is now. Raises `ConfigurationError` where there is no such file."""
    try:
        with fsspec.open(evidence.uri, "rb") as file:
            content: bytes = file.read()
    except Exception as error:  # fsspec's back ends raise errors of their own
        raise ConfigurationError(
            f"evidence `{evidence.uri}` cannot be read: {error}; mend the access, or replay from the topic with "
            "`--topic-scan`"
        ) from error
    return content, hashlib.sha256(content).hexdigest()
