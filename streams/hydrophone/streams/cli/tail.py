"""`hydrophone tail scores | alerts | verdicts`: what leaves, as it leaves."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, TypeVar

import typer

from hydrophone.schemas.alert import Alert, FiredRule
from hydrophone.schemas.event import Event
from hydrophone.schemas.score import WindowScore
from hydrophone.schemas.verdict import FrameVerdicts, Verdict
from hydrophone.streams import topics
from hydrophone.streams.cli.console import out, p_bar, readable
from hydrophone.streams.cli.options import Bootstrap, Json, KafkaProperty, Prefix, kafka_flags
from hydrophone.streams.follow import Follower
from hydrophone.streams.settings import Settings, load_settings

__all__ = ["alert_line", "register", "rule_line", "score_line", "verdict_lines"]

E = TypeVar("E", bound=Event)

tail = typer.Typer(help="Print events as they arrive.", no_args_is_help=True, rich_markup_mode=None)

FromBeginning = Annotated[bool, typer.Option("--from-beginning", help="Everything the topic still holds, first.")]
Count = Annotated[int | None, typer.Option(help="Stop after so many.", min=1)]
Timeout = Annotated[float | None, typer.Option(help="Seconds after which to give up.")]


def register(app: typer.Typer) -> None:
    app.add_typer(tail, name="tail")


@tail.command()
def scores(
    as_json: Json = False,
    from_beginning: FromBeginning = False,
    count: Count = None,
    timeout: Timeout = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
) -> int:
    """One line a window. Exit code 1 when the time was over before `--count` came."""
    settings = load_settings(bootstrap=bootstrap, topic_prefix=prefix, **kafka_flags(kafka))
    events = _follow(settings, topics.SCORES, WindowScore, from_beginning, timeout)
    return _print(events, lambda event: (score_line(event),), count, as_json=as_json)


@tail.command()
def alerts(
    as_json: Json = False,
    from_beginning: FromBeginning = False,
    count: Count = None,
    timeout: Timeout = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
) -> int:
    """One line an alert. Exit code 1 when the time was over before `--count` came."""
    settings = load_settings(bootstrap=bootstrap, topic_prefix=prefix, **kafka_flags(kafka))
    events = _follow(settings, topics.ALERTS, Alert, from_beginning, timeout)
    return _print(events, lambda event: (alert_line(event),), count, as_json=as_json)


@tail.command()
def verdicts(
    as_json: Json = False,
    from_beginning: FromBeginning = False,
    count: Count = None,
    timeout: Timeout = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    kafka: KafkaProperty = None,
) -> int:
    """One line a row, or with --json one object a frame; --count counts lines. Exit code 1 when the time was over."""
    settings = load_settings(bootstrap=bootstrap, topic_prefix=prefix, **kafka_flags(kafka))
    events = _follow(settings, topics.VERDICTS, FrameVerdicts, from_beginning, timeout)
    return _print(events, verdict_lines, count, as_json=as_json)


def verdict_lines(event: FrameVerdicts) -> Iterator[str]:
    """One line for each row told of."""
    for verdict in event.verdicts:
        name = verdict.sample_id or f"{event.frame_id}:{verdict.row}"
        known = "" if verdict.p_value is None else f"p={verdict.p_value:<7.4g}"
        head = f"{event.model:20}  {verdict.decision:7}  {known:9}"
        yield readable(f"{head}  {name}  {verdict.client_id or ''}  {_told(verdict)}").rstrip()


def _told(verdict: Verdict) -> str:
    attack = verdict.attack
    looks = "" if attack is None else f"looks like {attack.name or attack.family or 'no attack it would name'}"
    return "; ".join(filter(None, (looks, ", ".join(verdict.reasons))))


def score_line(score: WindowScore) -> str:
    """One window for people: time, rows, joint p, a small bar per layer, verdict."""
    at = time.strftime("%H:%M:%S", time.gmtime(score.window.start_ms / 1000))
    head = f"{at}  {score.model:20}  n={score.counts.tested:<4}"
    if score.joint is None:
        return f"{head}  not tested: {score.reason}"
    bars = "".join(p_bar(layer.p_adjusted, score.permutations) for layer in score.layers.values())
    verdict = "different" if score.rejected else "as usual"
    return f"{head}  p={score.joint.p_value:<7.4g}  |{bars}|  {verdict}"


def alert_line(alert: Alert) -> str:
    at = time.strftime("%H:%M:%S", time.gmtime(alert.window.start_ms / 1000))
    rings = "; ".join(map(rule_line, alert.rules))
    suspects = readable(", ".join(s.sample_id or f"{s.frame_id}:{s.row}" for s in alert.suspects[:3]))
    urgent = [client for client in alert.clients if client.action != "observe"]
    clients = readable("".join(f"  {client.action} {client.client_id}" for client in urgent[:3]))
    return f"{at}  {alert.severity.upper():8}  {alert.title}  {rings}  suspects: {suspects}{clients}"


def rule_line(rule: FiredRule) -> str:
    """Which rule fired, and by how much."""
    if rule.name == "sequential":
        return f"sequential {rule.value:.4g} >= {rule.threshold:.4g}"
    return f"{rule.name} {rule.k} of {rule.n} at p <= {rule.level:.2g}, now p={rule.p_values[-1]:.4g}"


def _print(events: Iterator[E], lines_of: Callable[[E], Iterable[str]], count: int | None, *, as_json: bool) -> int:
    lines = (line for event in events for line in ((event.model_dump_json(),) if as_json else lines_of(event)))
    for printed, line in enumerate(lines, start=1):
        out.print(line, markup=False)
        if printed == count:
            return 0
    return 1 if count is not None else 0


def _follow(
    settings: Settings, topic: topics.Topic, event_class: type[E], from_beginning: bool, timeout_s: float | None
) -> Iterator[E]:
    """Events until the time is over."""
    name = topic.full_name(settings.topic_prefix)
    with Follower(settings.kafka_properties, name, event_class, from_beginning=from_beginning) as follower:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while deadline is None or time.monotonic() < deadline:
            yield from follower.poll(0.2)
