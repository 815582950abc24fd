"""Schemas light enough for somebody else's service. What may import what: `make check` (import-linter)."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEAVY = {"torch", "scipy", "sklearn", "confluent_kafka", "faust", "aiokafka", "opentelemetry", "jaxtyping"}
BROKERS = {"confluent_kafka", "faust", "aiokafka", "opentelemetry", "pydantic_settings"}


def modules_after(statement: str) -> set[str]:
    """Top-level modules a fresh interpreter holds after `statement`."""
    program = (
        f"import sys, json\n{statement}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_schemas_bring_nothing_heavy_with_them() -> None:
    assert (
        not modules_after("import hydrophone.schemas, hydrophone.schemas.headers, hydrophone.schemas.identity") & HEAVY
    )


def test_detectors_bring_no_broker_with_them() -> None:
    assert not modules_after("import hydrophone.detectors") & BROKERS


def test_hydrophone_stays_a_namespace() -> None:
    """An `__init__.py` in one source root would hide the other two."""
    assert not [
        path for root in ("schemas", "detectors", "streams") for path in ROOT.glob(f"{root}/hydrophone/__init__.py")
    ]
