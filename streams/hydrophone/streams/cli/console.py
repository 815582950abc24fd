"""How the program speaks: results on standard output, everything else on standard error."""

import math
import re

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["SHOWN_SUSPECTS", "complain", "err", "out", "p_bar", "progress", "readable"]

SHOWN_SUSPECTS = 10
"""An alert names up to a hundred rows; a reader looks at the first."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def readable(text: str) -> str:
    """Without control characters: ids come from clients under suspicion, and a terminal would obey them."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def complain(message: str) -> None:
    err.print(f"hydrophone: {message}", style="bold red", markup=False)


def progress(*, transient: bool = True) -> Progress:
    """A bar on standard error; silent where nobody watches."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=transient,
        disable=not err.is_terminal,
    )


def p_bar(p_value: float, permutations: int) -> str:
    """One character for a p-value: the taller, the smaller the p-value on a logarithmic scale."""
    bars = " ▁▂▃▄▅▆▇█"
    deepest = math.log(permutations + 1)
    height = round((len(bars) - 1) * min(1.0, -math.log(p_value) / deepest)) if p_value > 0 else len(bars) - 1
    return bars[height]
