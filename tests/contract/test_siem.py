"""Names that others own: fields of ECS, techniques of ATLAS; and pages that say what is so.

tests/fixtures/ecs-9.4.0.json       fields of ECS 9.4.0 with their types, from Elastic's own package (it says which)
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from tests.support.findings import findings

from hydrophone.schemas.incidents import Finding
from hydrophone.schemas.siem import atlas, to_ecs
from hydrophone.schemas.siem.document import FORMS, examples, table, with_table, write
from hydrophone.schemas.siem.ecs import ECS_VERSION
from hydrophone.schemas.siem.example import STEPS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE = ("detectors", "streams")
ECS: dict[str, str] = json.loads((ROOT / "tests" / "fixtures" / "ecs-9.4.0.json").read_text())["fields"]

ATLAS_5_6_0 = {
    "AML.T0015": ("Evade AI Model", {"Initial Access", "Defense Evasion", "Impact"}),
    "AML.T0024": ("Exfiltration via AI Inference API", {"Exfiltration"}),
    "AML.T0024.002": ("Extract AI Model", set()),
    "AML.T0040": ("AI Model Inference API Access", {"AI Model Access"}),
    "AML.T0042": ("Verify Attack", {"AI Attack Staging"}),
    "AML.T0043": ("Craft Adversarial Data", {"AI Attack Staging"}),
    "AML.T0043.001": ("Black-Box Optimization", set()),
}
"""As `dist/ATLAS.yaml` has them: a second copy, so that neither changes by itself."""


def leaves(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict) and ECS.get(prefix + name) != "object":
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def has_type(value: Any, kind: str) -> bool:
    if kind == "strings":
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if kind == "object":
        return all(isinstance(entry, str) or has_type(entry, "strings") for entry in value.values())
    return isinstance(value, str if kind == "string" else int | float)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(findings())
@example(STEPS[0])
@example(STEPS[-1])
def test_every_field_is_one_of_ecs_and_of_its_type(finding: Finding) -> None:
    fields = dict(leaves(to_ecs(finding)))
    assert fields.keys() <= ECS.keys()
    assert [name for name, value in fields.items() if not has_type(value, ECS[name])] == []
    assert fields["ecs.version"] == ECS_VERSION == "9.4.0"
    assert (fields["event.kind"], fields["event.category"], fields["event.type"]) == (
        "alert",
        ["intrusion_detection"],
        ["info"],
    )


def test_the_pinned_techniques_are_those_of_atlas() -> None:
    ours = {
        uid: (technique.name, {atlas.TACTICS[tactic] for tactic in technique.tactics})
        for uid, technique in atlas.TECHNIQUES.items()
    }
    assert ours == ATLAS_5_6_0
    assert all(atlas.parent_of(uid) in atlas.TECHNIQUES for uid in ours)


def test_every_technique_an_alert_may_claim_has_a_name() -> None:
    sources = [path.read_text(encoding="utf-8") for root in CODE for path in (ROOT / root).rglob("*.py")]
    claimed = set(re.findall(r"AML\.T[0-9]{4}(?:\.[0-9]{3})?", "".join(sources)))
    assert {"AML.T0015", "AML.T0043.001"} <= claimed, "the search finds techniques"
    assert claimed <= atlas.TECHNIQUES.keys()


# Pages ---------------------------------------------------------------------------------------------------------------


def test_the_examples_are_not_stale() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "siem").iterdir()}
    assert found == examples(), "run `make schemas`"


def test_the_table_of_what_each_form_keeps_is_not_stale() -> None:
    page = (DOCS / "siem.md").read_text(encoding="utf-8")
    assert table() in page, "run `make schemas`"
    assert with_table(page) == page


def test_writing_mends_a_stale_page(tmp_path: Path) -> None:
    page = (DOCS / "siem.md").read_text(encoding="utf-8")
    (tmp_path / "siem.md").write_text(page.replace("| model |", "| modell |"), encoding="utf-8")
    write(tmp_path)
    assert (tmp_path / "siem.md").read_text(encoding="utf-8") == page
    assert {path.name for path in (tmp_path / "siem").iterdir()} == examples().keys()


def test_ocsf_keeps_all_but_the_picture() -> None:
    """It is what travels on `findings`."""
    lost = [row.split(" | ")[0] for row in table().splitlines()[2:] if row.split(" | ")[1] != "yes"]
    assert lost == ["| suspects: place in the picture"]
    assert len(FORMS) == 5
