"""A window's rows speak one by one: verdicts beside suspects, rejected rows that the test passed over, clients."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.frames import frame_id
from tests.support.processor import WIDTH, judging_reference, load, small_reference
from tests.unit.streams.test_judge import judge_with

from hydrophone.detectors import Reference
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.origins import Origin
from hydrophone.schemas.score import Counts, WindowScore
from hydrophone.streams.attention import MOST_ADDED, NO_ATTENTION, look_at_rows
from hydrophone.streams.clients import advise
from hydrophone.streams.effects import WindowClosed

MODEL = "m"
BOUNDS = WindowBounds(start_ms=0, end_ms=60_000)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return load(judging_reference(tmp_path_factory.mktemp("reference"), MODEL))


def window(rows: int, odd: int, *, shift: float = 4.0, seed: int = 3) -> Frame:
    """The last `odd` rows are far off and of one client; the others of two more."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, WIDTH)).astype(np.float32)
    values[rows - odd :] += shift
    name = frame_id(f"window {rows} {odd}")
    return Frame(
        MODEL,
        {"fc": values},
        event_time_ms=np.array(5),
        frame_id=name,
        client_ids=["mallory" if row >= rows - odd else ("alice", "bob")[row % 2] for row in range(rows)],
        sample_ids=[f"s{row}" for row in range(rows)],
        origins=[Origin(name, row, 2, 5) for row in range(rows)],
    )


def scored(reference: Reference, sample: Frame) -> WindowScore:
    closed = WindowClosed(MODEL, 0, 60_000, 2, 5, 9, Counts(seen=len(sample), tested=len(sample)), sample, ())
    return judge_with(reference).judge(closed, None, None).score


def test_a_client_of_odd_rows_is_named_and_its_rows_carry_their_verdicts(reference: Reference) -> None:
    sample = window(64, 10)
    score = scored(reference, sample)
    assert (score.clients[0].client_id, score.clients[0].action) == ("mallory", "block")
    assert score.clients[0].flagged == 10
    assert {client.client_id: client.action for client in score.clients[1:]}.items() <= {
        ("alice", "observe"),
        ("bob", "observe"),
    }
    verdicts = {suspect.sample_id: suspect.verdict for suspect in score.suspects}
    rejected = {name for name, verdict in verdicts.items() if verdict is not None and verdict.decision == "reject"}
    assert {f"s{row}" for row in range(54, 64)} <= rejected
    assert all(verdict is not None for verdict in verdicts.values())
    assert all(suspect.topic == "t" for suspect in score.suspects)


def test_rejected_rows_that_the_test_passed_over_are_named_too_and_once(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With suspects cut to one, nine of the ten odd rows come by the detectors."""
    sample = window(64, 10)
    result = reference.test(sample)
    attention = look_at_rows(reference, sample, replace(result, suspects=result.suspects[:1]))
    score = attention.drawn_to(replace(result, suspects=result.suspects[:1]).to_score(window=BOUNDS))
    places = [(suspect.frame_id, suspect.row) for suspect in score.suspects]
    assert len(set(places)) == len(places) >= 10
    assert {row for _, row in places} >= set(range(54, 64))
    scores = dict(zip([origin.row for origin in result.origins], result.row_scores, strict=True))
    assert all(suspect.score == pytest.approx(scores[suspect.row]) for suspect in score.suspects[1:])
    many = window(200, 120)
    assert len(look_at_rows(reference, many, reference.test(many)).rejected) == MOST_ADDED


def test_the_advice_is_that_of_the_rule_on_the_conformal_p_values(reference: Reference) -> None:
    sample = window(64, 3)
    assert reference.samples is not None
    verdicts = reference.samples.judge(sample)
    expected = advise(
        list(sample.client_ids or ()),
        verdicts.p_value,
        clean_rows=reference.samples.manifest.sizes.calibration,
        samples=list(sample.sample_ids or ()),
    )
    found = scored(reference, sample).clients
    nameless = [[advice.model_copy(update={"sample_ids": ()}) for advice in them] for them in (found, expected)]
    assert nameless[0] == nameless[1], "but for the order of rows that are equally rare"


def test_the_same_window_says_the_same_whatever_the_order_of_its_rows(reference: Reference) -> None:
    sample = window(64, 10)
    order = np.random.default_rng(1).permutation(64)
    one, other = scored(reference, sample), scored(reference, sample.take(order))
    assert one.clients == other.clients
    assert {s.sample_id for s in one.suspects} == {s.sample_id for s in other.suspects}


def test_repeated_rows_count_once(reference: Reference) -> None:
    """One odd row sent ten times is one odd row: a retry loop is no reason to block."""
    sample = window(64, 10)
    sample.layers["fc"][54:] = sample.layers["fc"][54]
    (mallory,) = [client for client in scored(reference, sample).clients if client.client_id == "mallory"]
    assert (mallory.rows, mallory.flagged) == (1, 1)


def test_without_detectors_a_rejecting_window_speaks_by_the_tests_own_p_values(tmp_path: Path) -> None:
    plain = load(small_reference(tmp_path, MODEL, rows=400))
    odd, calm = scored(plain, window(64, 20)), scored(plain, window(64, 0))
    assert odd.rejected
    assert odd.clients[0].client_id == "mallory"
    assert odd.clients[0].action in {"challenge", "throttle", "block"}
    assert all(suspect.verdict is None for suspect in odd.suspects)
    assert not calm.rejected
    assert calm.clients == ()
    small = window(10, 2)
    assert look_at_rows(plain, small, plain.test(small)) is NO_ATTENTION, "not tested"


def test_rows_without_clients_lead_to_no_advice(reference: Reference) -> None:
    score = scored(reference, replace(window(64, 10), client_ids=None))
    assert score.clients == ()
    assert any(suspect.verdict for suspect in score.suspects)
