"""The JSON Schemas in `docs/schemas/` are those of the events."""

from pathlib import Path

from hydrophone.schemas.publish import json_schemas, write

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas"


def test_the_published_schemas_are_not_stale() -> None:
    found = {path.name: path.read_text() for path in PUBLISHED.glob("*.json")}
    assert found == json_schemas(), "run `python -m hydrophone.schemas.publish docs/schemas`"


def test_publishing_writes_every_schema(tmp_path: Path) -> None:
    write(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(json_schemas())
