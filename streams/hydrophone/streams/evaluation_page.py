"""An evaluation as one HTML page that needs nothing beside it: tables and plots, no script, no address.

Names in it come from frames, so every text is escaped, and no control character is left."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Final

from hydrophone.detectors.evaluation import Evaluation, ModelAttribution
from hydrophone.detectors.evaluation.curves import Rate
from hydrophone.streams import evaluation_plots as plots

__all__ = ["page"]

CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

CSS: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2833; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #d5d8dc }
table { border-collapse: collapse; margin: .8rem 0 } th, td { padding: .2rem .7rem; text-align: right }
th { border-bottom: 1px solid #566573; font-weight: 600 } td:first-child, th:first-child { text-align: left }
tr:nth-child(even) td { background: #f4f6f7 } svg { max-width: 100%; height: auto } .warn { color: #c0392b }
"""


def page(evaluation: Evaluation | None, models: ModelAttribution | None = None) -> str:
    """Raises `ConfigurationError` without matplotlib."""
    title = (
        "Evaluation" if evaluation is None else f"Evaluation of {evaluation.model}, reference {evaluation.reference}"
    )
    parts = [] if evaluation is None else list(_of_reference(evaluation))
    parts += [] if models is None else list(_of_models(models))
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{CSS}</style>'
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *parts])
    text = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _of_reference(evaluation: Evaluation) -> Iterable[str]:
    yield _paragraph(f"{evaluation.rows} labelled rows; per-sample detectors against natural rows.")
    if evaluation.shared_rows:
        told = f"{evaluation.shared_rows} rows are the reference's own: these numbers flatter."
        yield f'<p class="warn">{html.escape(told)}</p>'
    yield _section("Attacks", _attacks(evaluation), plots.roc(evaluation))
    yield _section("Decisions by source", _sources(evaluation), plots.abstaining(evaluation))
    yield _section("Reliability of abstention", *_abstention(evaluation), plots.calibration(evaluation))
    yield _section("Detection rate per layer", plots.detection_rates(evaluation))
    yield _section("Gate acceptance by source", plots.gate(evaluation))
    if evaluation.picture is not None:
        layer = evaluation.picture.layer
        note = f"t-SNE of `{layer}`, one plane for each predicted class: for a look, not a test."
        yield _section("Natural and adversarial rows", _paragraph(note), plots.tsne(evaluation))
    yield _section("Each measure alone", _paragraph("ROC-AUC, whichever way it points."), _measures(evaluation))
    if evaluation.reasons:
        rows = [(reason, str(count)) for reason, count in evaluation.reasons.items()]
        yield _section("What could not be judged", _table(("reason", "rows"), rows))


def _attacks(evaluation: Evaluation) -> str:
    head = ("attack", "rows", "ROC-AUC", "AP", "precision", "recall", "F1", "false alarms", "recall with abstentions")
    rows = [
        (
            report.attack,
            str(report.rows),
            f"{report.curve.auc:.3f}",
            f"{report.curve.average_precision:.3f}",
            "" if report.reject.precision is None else f"{report.reject.precision:.3f}",
            f"{report.reject.recall:.3f}",
            f"{report.reject.f1:.3f}",
            f"{report.reject.false_positive_rate:.1%}",
            f"{report.flag.recall:.3f}",
        )
        for report in (*evaluation.attacks, evaluation.all_attacks)
    ]
    return _table(head, rows)


def _sources(evaluation: Evaluation) -> str:
    rows = [
        (
            source.source + ("" if source.is_hostile else " (not hostile)"),
            str(source.rows),
            _share(source.accepted),
            _share(source.abstained),
            _share(source.rejected),
            "" if source.window_p_value is None else f"{source.window_p_value:.3g}",
        )
        for source in evaluation.sources
    ]
    return _table(("source", "rows", "accepted", "abstained", "rejected", "p as one window"), rows)


def _abstention(evaluation: Evaluation) -> Iterable[str]:
    found = evaluation.abstention
    rows = [
        ("decided", _share(found.decided)),
        ("right, of those", _share(found.right)),
        ("right, were all abstained rows rejected", _share(found.as_reject)),
        ("right, were all abstained rows accepted", _share(found.as_accept)),
    ]
    naming = evaluation.naming
    if naming is not None:
        rows += [
            ("families named, of flagged rows", _share(naming.families_named)),
            ("families right, of those", _share(naming.families_right)),
            ("attacks named, of flagged rows", _share(naming.attacks_named)),
            ("attacks right, of those", _share(naming.attacks_right)),
        ]
    yield _table(("rows", "share"), rows)


def _measures(evaluation: Evaluation) -> str:
    reports = (*evaluation.attacks, evaluation.all_attacks)
    rows = [
        (name, *("" if (area := report.measures[name]) is None else f"{area:.3f}" for report in reports))
        for name in evaluation.all_attacks.measures
    ]
    return _table(("measure", *(report.attack for report in reports)), rows)


def _of_models(models: ModelAttribution) -> Iterable[str]:
    rows = [
        (
            model.model,
            str(model.rows),
            f"{model.precision:.3f}",
            f"{model.recall:.3f}",
            f"{model.f1:.3f}",
            f"{model.average_precision:.3f}",
        )
        for model in models.models
    ]
    how = "held out by source" if models.is_grouped else "rows without sample ids, so nothing kept sources together"
    note = (
        f"Forest on outputs, {models.folds} folds, {how}; right {_share(models.right)}, by chance {models.chance:.1%}."
    )
    table = _table(("model", "rows", "precision", "recall", "F1", "AP"), rows)
    yield _section("Which model was attacked", _paragraph(note), table, plots.confusion(models))


def _share(found: Rate) -> str:
    if found.share is None or found.low is None or found.high is None:
        return "no rows"
    return f"{found.share:.1%} ({found.low:.1%} to {found.high:.1%})"


def _section(title: str, *parts: str) -> str:
    return "\n".join([f"<h2>{html.escape(title)}</h2>", *parts])


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"
