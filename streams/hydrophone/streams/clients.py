"""What to do about each client of a window, by its rows that are not like clean ones. Pure; nobody is blocked here.

A row is *flagged* where its conformal p-value is at most 1 %. The threshold itself was estimated from N clean rows, so
of n clean rows the number flagged is beta-binomial (n, k, N + 1 - k) with k = floor(1 % of N + 1): the calibration's
own error is in the tail, or a busy client would look guilty for being busy. p is that tail times the clients looked at.

    action      p at most   and
    observe     1           some of its rows are flagged, as chance would have it
    challenge   1e-3        more of them than chance explains: once in a thousand clean windows for anybody
    throttle    1e-5        and at least a tenth of its rows
    block       1e-8        and at least half of its rows, 8 of them or more

A client is judged by what it sends; one that forwards for many (a gateway) is judged for all of them. Rows that repeat
another count once, rows without a client are left out.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from hydrophone.schemas.score import Action, ClientAdvice
from hydrophone.streams.row_verdicts import LABEL_LIMIT

__all__ = ["FLAGGED", "advise"]

FLAGGED: Final = 0.01
"""Share of clean rows that are flagged."""

CHALLENGE, THROTTLE, BLOCK = 1e-3, 1e-5, 1e-8
THROTTLE_SHARE, BLOCK_SHARE, BLOCK_ROWS = 0.1, 0.5, 8

MOST_CLIENTS: Final = 20
MOST_SAMPLES: Final = 5


def advise(
    clients: Sequence[str | None],
    p_values: NDArray[np.floating],
    *,
    clean_rows: int,
    samples: Sequence[str | None] | None = None,
) -> tuple[ClientAdvice, ...]:
    """Advice for each client with a flagged row, the most urgent first. One client, p-value and sample id per row;
    `clean_rows` is how many rows the p-values are ranks among. A p-value that is NaN flags nothing."""
    k = max(1, int(FLAGGED * (clean_rows + 1)))
    is_flagged = p_values <= k / (clean_rows + 1) * (1 + 1e-6)
    sent = Counter(client for client in clients if client is not None)
    flagged: defaultdict[str, list[int]] = defaultdict(list)
    for row in np.flatnonzero(is_flagged)[np.argsort(p_values[is_flagged], kind="stable")].tolist():
        client = clients[row]
        if client is not None:
            flagged[client].append(row)
    found = []
    for client, rows in flagged.items():
        tail = float(betabinom.sf(len(rows) - 1, sent[client], k, clean_rows + 1 - k))
        named = tuple(text[:LABEL_LIMIT] for row in rows if samples is not None and (text := samples[row]))
        expected = sent[client] * k / (clean_rows + 1)
        found.append(_advice(client, sent[client], len(rows), expected, min(1.0, tail * len(sent)), named))
    found.sort(key=lambda advice: (advice.p_value, -advice.flagged, advice.client_id))
    return tuple(found[:MOST_CLIENTS])


def _advice(
    client: str, rows: int, flagged: int, expected: float, p_value: float, samples: tuple[str, ...]
) -> ClientAdvice:
    action = _action(p_value, flagged, flagged / rows)
    return ClientAdvice(
        client_id=client[:LABEL_LIMIT],
        rows=rows,
        flagged=flagged,
        expected=expected,
        p_value=p_value,
        sample_ids=samples[:MOST_SAMPLES],
        action=action,
        reason=_reason(action, rows, flagged, expected, p_value),
    )


def _action(p_value: float, flagged: int, share: float) -> Action:
    if p_value <= BLOCK and share >= BLOCK_SHARE and flagged >= BLOCK_ROWS:
        return "block"
    if p_value <= THROTTLE and share >= THROTTLE_SHARE:
        return "throttle"
    return "challenge" if p_value <= CHALLENGE else "observe"


def _reason(action: Action, rows: int, flagged: int, expected: float, p_value: float) -> str:
    count = (
        f"{flagged} of {rows} rows are not like clean ones where {expected:.2g} would be by chance (p = {p_value:.2g})"
    )
    if action == "observe":
        return f"{count}: not more than chance explains"
    if action == "challenge":
        return f"{count}: more than chance explains"
    return f"{count}, {flagged / rows:.0%} of what it sent"
