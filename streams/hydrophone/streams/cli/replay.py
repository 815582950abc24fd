"""`hydrophone replay`: hold scores against their evidence or the topic. What equal means: `streams/replay.py`."""

import json
import sys
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic import ValidationError
from rich.table import Table

from hydrophone.schemas.errors import ConfigurationError
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.score import WindowScore
from hydrophone.streams import topics
from hydrophone.streams.cli.console import err, out, progress, readable
from hydrophone.streams.cli.options import Bootstrap, Device, Json, KafkaProperty, Prefix, References, kafka_flags
from hydrophone.streams.settings import Settings, load_settings

if TYPE_CHECKING:
    from hydrophone.streams.kafka.known_references import KnownReferences
    from hydrophone.streams.replay import Check, Replayed

__all__ = ["register"]

STDIN: Final = Path("-")
SHOWN: Final = 40
"""Characters of a value in the table; `--json` has all of it."""


def register(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    scores: Annotated[
        Path,
        typer.Argument(help="Scores, one JSON object a line (`tail scores --json`); - is stdin.", metavar="SCORES"),
    ],
    topic_scan: Annotated[
        bool, typer.Option("--topic-scan", help="Rebuild the windows from the topic, not from their evidence.")
    ] = False,
    reference: References = None,
    lateness_ms: Annotated[int | None, typer.Option(help="As the processor's.  [default: 10000]", metavar="MS")] = None,
    future_skew_ms: Annotated[
        int | None, typer.Option(help="As the processor's.  [default: 5000]", metavar="MS")
    ] = None,
    expected_delay_ms: Annotated[
        int | None, typer.Option(help="As the processor's.  [default: 2000]", metavar="MS")
    ] = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
    device: Device = None,
    as_json: Json = False,
) -> int:
    """Compute scores again and compare: same rows, same suspects, p within 2 / (B + 1). Exit code 1 where one differs.

    References are looked for in the folders given, else among those announced on the topic.
    """
    settings = load_settings(
        reference=tuple(reference) if reference else None,
        lateness_ms=lateness_ms,
        future_skew_ms=future_skew_ms,
        expected_delay_ms=expected_delay_ms,
        bootstrap=bootstrap,
        topic_prefix=prefix,
        device=device,
        **kafka_flags(kafka),
    )
    read = _scores(scores)
    if not read:
        raise ConfigurationError(f"`{scores}` holds no score; write some with `hydrophone tail scores --json`")
    agree = True
    with progress() as bar:
        task = bar.add_task("replaying", total=len(read))
        known = _references(settings, topic_scan=topic_scan)
        for score in read:
            found = _from_topic(score, settings, known) if topic_scan else _from_evidence(score, known)
            bar.advance(task)
            agree &= found.agrees
            _show(found, as_json=as_json)
    return 0 if agree else 1


def _references(settings: Settings, *, topic_scan: bool) -> "KnownReferences":
    from hydrophone.streams.kafka.known_references import KnownReferences

    has_broker = bool(settings.bootstrap or settings.kafka.get("bootstrap.servers"))
    kafka = settings.kafka_properties if has_broker or topic_scan else None
    topic = topics.REFERENCES.full_name(settings.topic_prefix)
    return KnownReferences(settings.reference, kafka=kafka, topic=topic, device=settings.device)


def _from_evidence(score: WindowScore, known: "KnownReferences") -> "Replayed":
    from hydrophone.streams.evidence import fetch_evidence
    from hydrophone.streams.replay import (
        UNREAD_REASONS,
        Check,
        Replayed,
        compare,
        from_evidence,
        judge_again,
    )

    reference = known.of(score)
    if score.evidence is None:
        if score.reason not in UNREAD_REASONS:
            raise ConfigurationError(
                f"score `{score.id}` names no evidence, as one that does not reject has none; replay it with "
                "`--topic-scan --bootstrap HOST:PORT`"
            )
        again = judge_again(score, from_evidence(score, None), reference)
        return Replayed(score, "score", compare(score, again))
    content, sha256 = fetch_evidence(score.evidence)
    file = Check("evidence", score.evidence.sha256, sha256, score.evidence.sha256 == sha256)
    if not file.agrees:  # what is in it is not what was tested, whatever it is
        return Replayed(score, "evidence", (file,))
    again = judge_again(score, from_evidence(score, Frame.decode(content)), reference)
    return Replayed(score, "evidence", (file, *compare(score, again)))


def _from_topic(score: WindowScore, settings: Settings, known: "KnownReferences") -> "Replayed":
    """From the records between the offsets that the score names, of each partition."""
    from hydrophone.streams.kafka.scan import LogScanner
    from hydrophone.streams.kafka.shard_plans import read_plans
    from hydrophone.streams.replay import parts_of, replay_scan, scan_rules, source_of

    source = source_of(score)
    if score.sampling_key_id != settings.sampling_key_id:
        raise ConfigurationError(
            f"score `{score.id}` was sampled with key `{score.sampling_key_id}` and the key at hand is "
            f"`{settings.sampling_key_id}`; give the deployment's in HYDROPHONE_SAMPLING_KEY"
        )
    reference = known.of(score)
    rules = scan_rules(
        score,
        settings.time_rules,
        settings.sampling_key_bytes,
        known.contract_of(reference),
        known.catalog_of(score.model, reference),
        read_plans(settings.kafka_properties, topics.CONTROL.full_name(settings.topic_prefix))
        if source.parts
        else None,
    )
    with ExitStack() as stack:
        logs = [
            stack.enter_context(LogScanner(settings.kafka_properties, source.topic, part.partition)).records(
                part.first_offset, part.close_offset
            )
            for part in parts_of(source)
        ]
        return replay_scan(score, chain.from_iterable(logs), rules, reference, settings.sampling_key_bytes)


def _show(found: "Replayed", *, as_json: bool) -> None:
    if as_json:
        out.print(json.dumps(found.as_json(), default=str), markup=False)
        return
    score = found.score
    verdict = "agrees" if found.agrees else "DIFFERS"
    out.print(
        f"{score.model} [{score.window.start_ms}, {score.window.end_ms}) from the {found.source}: {verdict}",
        markup=False,
    )
    table = Table("", "then", "now", "allowed", "")
    for check in found.checks:
        allowed = "equal" if check.allowed is None else f"± {check.allowed:.3g}"
        table.add_row(check.name, *_cells(check), allowed, "" if check.agrees else "DIFFERS")
    out.print(table)


def _cells(check: "Check") -> tuple[str, str]:
    """Short, and without control characters; of two lists what is in one of them alone."""
    then, now = check.then, check.now
    if check.name == "suspects":
        if check.agrees:
            return (f"{len(then)} rows", f"{len(now)} rows")
        return _cell([s for s in then if s not in now]), _cell([s for s in now if s not in then])
    return _cell(then), _cell(now)


def _cell(value: object) -> str:
    text = readable(f"{value:.6g}" if isinstance(value, float) else str(value))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _scores(path: Path) -> list[WindowScore]:
    """One score that fills the file, or one a line. Raises `ConfigurationError` naming the line."""
    if path != STDIN and not path.is_file():
        raise ConfigurationError(f"`{path}` must be a file of scores, or - for standard input; there is no such file")
    text = sys.stdin.read() if path == STDIN else path.read_text(errors="replace")
    try:
        whole = [WindowScore.model_validate_json(text)]
    except ValidationError:  # several, or none: by line, so that the message can name one
        lines = enumerate(text.splitlines(), start=1)
        whole = [_score(path, number, line) for number, line in lines if line.strip()]
    return whole


def _score(path: Path, number: int, line: str) -> WindowScore:
    try:
        return WindowScore.model_validate_json(line)
    except ValidationError as error:
        if "score_id" in line:
            err.print("an alert names its score by `score_id`: replay that score", markup=False)
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "line"
        raise ConfigurationError(
            f"`{path}` line {number} must be one window score; `{place}`: {first['msg']}; write such lines with "
            "`hydrophone tail scores --json`"
        ) from None
