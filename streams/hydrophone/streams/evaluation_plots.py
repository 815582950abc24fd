"""Plots of an evaluation as SVG texts. matplotlib draws, without its global state; numbers are made elsewhere."""

import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hydrophone.detectors.evaluation import Evaluation, ModelAttribution
from hydrophone.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["abstaining", "calibration", "confusion", "detection_rates", "gate", "roc", "tsne"]

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NAME_LIMIT: Final = 40

HOSTILE, NATURAL, GRID = "#c0392b", "#2c6fbb", "#d5d8dc"
STYLE: Final[Any] = {  # matplotlib wants each key as a literal of its own
    "svg.hashsalt": "hydrophone",  # the same numbers give the same bytes
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def roc(evaluation: Evaluation) -> str:
    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GRID)
        for report in (*evaluation.attacks, evaluation.all_attacks):
            is_sum = report is evaluation.all_attacks
            curve = report.curve
            label = f"{_name(report.attack)} ({curve.auc:.3f})"
            style: dict[str, Any] = {"color": "black", "linewidth": 2.2} if is_sum else {"linewidth": 1.2}
            axes.plot(curve.false_positive_rates, curve.true_positive_rates, label=label, **style)
        axes.set(xlabel="natural rows flagged", ylabel="hostile rows flagged", xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(loc="lower right", title="attack (area)")

    return _drawn(draw, 6, 5)


def calibration(evaluation: Evaluation) -> str:
    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        levels = [level for level in evaluation.levels if level.natural.share is not None]
        x = [level.level for level in levels]
        y = [level.natural.share or 0.0 for level in levels]
        low = [max(0.0, s - (level.natural.low or 0.0)) for s, level in zip(y, levels, strict=True)]
        high = [max(0.0, (level.natural.high or 0.0) - s) for s, level in zip(y, levels, strict=True)]
        axes.plot([0.005, 1], [0.005, 1], color=GRID)
        axes.errorbar(x, y, yerr=[low, high], fmt="o", color=NATURAL, capsize=3)
        axes.set(xscale="log", yscale="log", xlabel="p at most", ylabel="share of natural rows")

    return _drawn(draw, 4, 3.6)


def abstaining(evaluation: Evaluation) -> str:
    """How each source was decided."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        names = [_name(source.source) for source in evaluation.sources][::-1]
        left = [0.0] * len(names)
        for field, colour in (("accepted", NATURAL), ("abstained", "#f0c36d"), ("rejected", HOSTILE)):
            shares = [getattr(source, field).share or 0.0 for source in evaluation.sources][::-1]
            axes.barh(names, shares, left=left, color=colour, label=field)
            left = [a + b for a, b in zip(left, shares, strict=True)]
        axes.set(xlim=(0, 1), xlabel="share of rows")
        axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1))

    return _drawn(draw, 6, 0.9 + 0.32 * len(evaluation.sources))


def gate(evaluation: Evaluation) -> str:
    layers = list(evaluation.sources[0].gate_accepts)
    rows = [(source.source, [source.gate_accepts[layer].share for layer in layers]) for source in evaluation.sources]
    return _table(rows, layers, "share of rows that the gate accepts")


def detection_rates(evaluation: Evaluation) -> str:
    layers = sorted({name for source in evaluation.sources for name in source.layers})
    rows = [
        (source.source, [*(source.layers.get(layer) for layer in layers), source.detection_rate])
        for source in evaluation.sources
    ]
    return _table(rows, [*layers, "(joint)"], "share of re-draws that differ")


def confusion(models: ModelAttribution) -> str:
    names = [model.model for model in models.models]
    rows = [
        (name, [count / max(1, sum(counts)) for count in counts])
        for name, counts in zip(names, models.confusion, strict=True)
    ]
    return _table(rows, names, "taken for (share of the attacked model's rows)")


def tsne(evaluation: Evaluation) -> str:
    """One plane for each predicted class."""
    picture = evaluation.picture
    assert picture is not None, "a page asks only where there is one"
    columns = min(4, len(picture.panels))
    lines = -(-len(picture.panels) // columns)

    def draw(figure: "Figure") -> None:
        for number, panel in enumerate(picture.panels, start=1):
            axes = figure.add_subplot(lines, columns, number)
            for is_hostile, colour, label in ((False, NATURAL, "natural"), (True, HOSTILE, "adversarial")):
                points = [xy for xy, hostile in zip(panel.xy, panel.is_hostile, strict=True) if hostile == is_hostile]
                x, y = zip(*points, strict=True)
                axes.scatter(x, y, s=7, color=colour, label=label, alpha=0.75, linewidths=0)
            axes.set(title=f"predicted {panel.predicted}", xticks=[], yticks=[])
            if number == 1:
                axes.legend(loc="upper left", fontsize=7, handletextpad=0.1)

    return _drawn(draw, 2.6 * columns, 2.5 * lines)


def _table(rows: Sequence[tuple[str, Sequence[float | None]]], columns: Sequence[str], title: str) -> str:
    """Shares as shades, with the numbers on them."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        shares = [[float("nan") if share is None else share for share in values] for _, values in rows]
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
        axes.invert_yaxis()
        for i, (_, values) in enumerate(rows):
            for j, share in enumerate(values):
                text = "" if share is None else f"{share:.0%}"
                colour = "white" if share is not None and share > 0.6 else "black"
                axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=colour)
        axes.set_xticks([j + 0.5 for j in range(len(columns))], columns, rotation=30, ha="right")
        axes.set_yticks([i + 0.5 for i in range(len(rows))], [_name(name) for name, _ in rows])
        axes.set(title=title)

    return _drawn(draw, 2.2 + 0.75 * len(columns), 1.5 + 0.33 * len(rows))


def _name(text: str) -> str:
    """Short, and without what no font can draw."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)[:NAME_LIMIT]


def _drawn(draw: Any, width: float, height: float) -> str:
    try:
        from matplotlib import rc_context  # noqa: PLC0415  # an extra: only pages need it
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "a page with plots needs matplotlib: install `hydrophone[report]`, or leave `--html` out"
        ) from None
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that one font lacks: the reader's browser draws the text
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
