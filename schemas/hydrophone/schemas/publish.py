"""Writes the JSON Schema of every event to `docs/schemas/`: `python -m hydrophone.schemas.publish DIR`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from hydrophone.schemas.alert import Alert
from hydrophone.schemas.commands import Acknowledge, Close, Drill, Suppress
from hydrophone.schemas.incidents import Finding, Incident
from hydrophone.schemas.operations import DeadLetter, ModelState, OperationalEvent, ReferencePointer, ShardPlan
from hydrophone.schemas.partials import SummaryChunk, WatermarkMarker
from hydrophone.schemas.score import WindowScore
from hydrophone.schemas.snapshots import WindowSnapshot
from hydrophone.schemas.verdict import FrameVerdicts

__all__ = ["json_schemas", "write"]

PUBLISHED: Final[Mapping[str, type[BaseModel]]] = {
    "acknowledge.v1": Acknowledge,
    "alert.v1": Alert,
    "close.v1": Close,
    "deadletter.v1": DeadLetter,
    "drill.v1": Drill,
    "event.v1": OperationalEvent,
    "finding.v1": Finding,
    "incident.v1": Incident,
    "reference.v1": ReferencePointer,
    "score.v1": WindowScore,
    "shards.v1": ShardPlan,
    "snapshot.v1": WindowSnapshot,
    "state.v1": ModelState,
    "summary.v1": SummaryChunk,
    "suppress.v1": Suppress,
    "verdict.v1": FrameVerdicts,
    "watermark.v1": WatermarkMarker,
}


def json_schemas() -> dict[str, str]:
    """File name to text, one per event."""
    return {
        f"{name}.json": json.dumps(model.model_json_schema(mode="serialization"), indent=2, sort_keys=True) + "\n"
        for name, model in PUBLISHED.items()
    }


def write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in json_schemas().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/schemas"))
