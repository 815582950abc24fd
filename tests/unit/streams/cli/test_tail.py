"""Lines for people: each names what a reader looks for, and what a client wrote cannot steer the terminal."""

import uuid

from tests.support.events import ALERT

from hydrophone.schemas.score import Attack, ClientAdvice, ReferenceId
from hydrophone.schemas.verdict import FrameVerdicts, Judged, RecordPlace, Verdict, verdict_id
from hydrophone.streams.cli.tail import alert_line, verdict_lines

PLACE = RecordPlace(topic="t", partition=0, offset=7)
REFERENCE = ReferenceId(version="v", sha256="a" * 64)
FRAME = uuid.UUID(int=5)


def verdict(row: int, **parts: object) -> Verdict:
    known: dict[str, object] = {"decision": "reject", "suspicion": 9.0, "p_value": 0.0025, "scores": {}}
    return Verdict.model_validate({"row": row, **known, **parts})


def frame(*verdicts: Verdict) -> FrameVerdicts:
    return FrameVerdicts(
        id=verdict_id(PLACE, REFERENCE),
        model="m",
        frame_id=FRAME,
        source=PLACE,
        reference=REFERENCE,
        judged=Judged(rows=64, accept=60, abstain=2, reject=2),
        verdicts=verdicts,
    )


def test_a_verdict_is_one_line_with_who_what_and_why() -> None:
    attack = Attack(family="one-step", family_probability=0.9, name="fgsm", probability=0.8)
    shy = Attack(family=None, family_probability=0.4, name=None, probability=0.3)
    lines = list(
        verdict_lines(
            frame(
                verdict(3, sample_id="s3", client_id="mallory", attack=attack),
                verdict(9, decision="abstain", suspicion=None, p_value=None, reasons=("not_finite:layer.fc",)),
                verdict(11, attack=shy),
            )
        )
    )
    assert lines[0].split() == ["m", "reject", "p=0.0025", "s3", "mallory", "looks", "like", "fgsm"]
    assert lines[1].split() == ["m", "abstain", f"{FRAME}:9", "not_finite:layer.fc"]
    assert lines[2].endswith("looks like no attack it would name")


def test_ids_cannot_steer_the_terminal() -> None:
    (line,) = verdict_lines(frame(verdict(0, sample_id="\x1b[2J", client_id="a\nb")))
    assert "\x1b" not in line
    assert "\n" not in line


def test_an_alert_names_the_clients_to_act_on_and_not_those_to_watch() -> None:
    def advice(client: str, action: str) -> ClientAdvice:
        return ClientAdvice.model_validate(
            {
                "client_id": client,
                "rows": 9,
                "flagged": 9,
                "expected": 0.1,
                "p_value": 0,
                "action": action,
                "reason": ".",
            }
        )

    line = alert_line(ALERT.model_copy(update={"clients": (advice("mallory", "block"), advice("alice", "observe"))}))
    assert "block mallory" in line
    assert "alice" not in line
