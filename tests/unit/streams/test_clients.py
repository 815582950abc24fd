"""The action for a client follows from its flagged rows, and clean traffic is hardly ever bothered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrophone.streams.clients import BLOCK_ROWS, CHALLENGE, FLAGGED, MOST_CLIENTS, advise
from hydrophone.streams.row_verdicts import LABEL_LIMIT

CLEAN = 1_999
ODD, FINE = 1 / (CLEAN + 1), 0.5


def of(rows: dict[str | None, tuple[int, int]]) -> tuple[list[str | None], np.ndarray]:
    """Clients with (rows, odd ones among them)."""
    clients = [client for client, (sent, _) in rows.items() for _ in range(sent)]
    p_values = [ODD if row < odd else FINE for sent, odd in rows.values() for row in range(sent)]
    return clients, np.array(p_values, np.float32)


@pytest.mark.parametrize(
    ("rows", "odd", "action"),
    [
        (100, 1, "observe"),  # one is what chance gives
        (100, 7, "challenge"),
        (3, 2, "challenge"),
        (200, 12, "challenge"),  # far too many, and yet six in a hundred
        (100, 15, "throttle"),
        (7, 7, "throttle"),  # all of them, and too few to block
        (40, 19, "throttle"),
        (40, 20, "block"),
        (BLOCK_ROWS, BLOCK_ROWS, "block"),
    ],
)
def test_the_action_follows_from_how_many_rows_are_flagged(rows: int, odd: int, action: str) -> None:
    clients, p_values = of({"c": (rows, odd), "d": (50, 0)})
    (advice,) = advise(clients, p_values, clean_rows=CLEAN)
    assert (advice.client_id, advice.rows, advice.flagged, advice.action) == ("c", rows, odd, action)
    assert advice.expected == pytest.approx(rows * FLAGGED)
    assert f"{odd} of {rows} rows" in advice.reason


def test_the_most_urgent_comes_first_and_nobody_without_flagged_rows_is_named() -> None:
    clients, p_values = of({"a": (30, 1), "b": (30, 25), None: (30, 30), "c": (30, 8), "d": (30, 0)})
    found = advise(clients, p_values, clean_rows=CLEAN, samples=[f"s{row}" for row in range(150)])
    assert [(advice.client_id, advice.action) for advice in found] == [
        ("b", "block"),
        ("c", "throttle"),
        ("a", "observe"),
    ]
    assert found[1].sample_ids == ("s90", "s91", "s92", "s93", "s94")


def test_more_clients_need_more_evidence() -> None:
    alone = advise(*of({"c": (20, 4)}), clean_rows=CLEAN)[0]
    crowd = {"c": (20, 4)} | {f"d{i}": (1, 0) for i in range(400)}
    among = next(a for a in advise(*of(crowd), clean_rows=CLEAN) if a.client_id == "c")
    assert among.p_value == pytest.approx(401 * alone.p_value)
    assert (alone.action, among.action) == ("challenge", "observe")


def test_few_clean_rows_are_weaker_evidence() -> None:
    """Ranked among few rows the threshold itself is uncertain, and that is in the p-value."""
    clients, p_values = of({"c": (60, 8)})
    few = advise(clients, np.where(p_values < 0.1, 1 / 100, p_values), clean_rows=99)[0]
    many = advise(clients, p_values, clean_rows=CLEAN)[0]
    assert few.expected == pytest.approx(many.expected)
    assert few.p_value > 100 * many.p_value


def test_unknown_p_values_flag_nothing_and_labels_stay_short() -> None:
    assert advise(["c"] * 5, np.full(5, np.nan), clean_rows=CLEAN) == ()
    (advice,) = advise(["c" * 999], np.array([ODD]), clean_rows=CLEAN, samples=["s" * 999])
    assert (len(advice.client_id), len(advice.sample_ids[0])) == (LABEL_LIMIT, LABEL_LIMIT)
    assert advise([], np.empty(0), clean_rows=CLEAN) == ()
    assert len(advise(*of({f"c{i}": (1, 1) for i in range(90)}), clean_rows=CLEAN)) == MOST_CLIENTS


@given(st.integers(1, 400), st.data())
def test_a_rank_at_the_threshold_is_flagged_whatever_the_rounding(clean: int, data: st.DataObject) -> None:
    k = max(1, int(FLAGGED * (clean + 1)))
    rank = data.draw(st.integers(1, min(2 * k, clean + 1)))
    found = advise(["c"], np.array([rank / (clean + 1)], np.float32), clean_rows=clean)
    assert bool(found) == (rank <= k)


def test_clean_windows_bother_hardly_anybody() -> None:
    """4,000 clean windows of 8 clients; the calibration rows are drawn anew each time, few as they are, so that their
    own error is in the rate. At most 1e-3 of windows may challenge anybody: 99.9 % sure to be at most 11 of 4,000."""
    rng = np.random.default_rng(1)
    windows, clean = 4_000, 300
    clients = [f"c{row % 8}" for row in range(256)]
    bothered = 0
    for _ in range(windows):
        ranked = np.sort(rng.random(clean))
        p_values = (1 + clean - np.searchsorted(ranked, rng.random(256))) / (clean + 1)
        bothered += any(advice.p_value <= CHALLENGE for advice in advise(clients, p_values, clean_rows=clean))
    assert bothered <= 11
