"""What `hydrophone score` prints for people, beside the test's own numbers."""

import pytest
from tests.support.events import SCORE

from hydrophone.schemas.score import LayerScore, PriorShift, Repeated, Replay
from hydrophone.streams.cli.files import show_score

REPLAY = Replay(
    rows=9, p_value=1e-20, groups=(Repeated(rows=10, is_exact=False, sample_ids=("a", "b\x1b"), client_ids=("c",)),)
)


def shown(capsys: pytest.CaptureFixture[str], **parts: object) -> str:
    show_score(SCORE.model_copy(update=parts))
    return capsys.readouterr().out


def test_repeated_rows_are_told_with_who_sent_them(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, replay=REPLAY)
    assert "replay: 9 rows repeat another, p = 1e-20" in text
    assert "10 nearly equal rows  a, b\N{REPLACEMENT CHARACTER}  c" in text


def test_an_untested_window_still_tells_its_replay(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, joint=None, status="not_tested", reason="too_few_distinct_rows", replay=REPLAY)
    assert "not tested: too_few_distinct_rows" in text
    assert "replay: 9 rows" in text


def test_a_moved_class_mix_names_the_class(capsys: pytest.CaptureFixture[str]) -> None:
    shift = PriorShift(p_value=0.0005, statistic=99.0, shares={"0": (0.4, 0.5), "7": (0.6, 0.1)})
    assert "class mix: p = 0.0005, most of all class 7: 60.0% here, 10.0% in the reference" in shown(
        capsys, prior_shift=shift
    )


def test_a_usual_class_mix_is_one_number(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, prior_shift=PriorShift(p_value=0.5, statistic=1.0, shares={"0": (1.0, 1.0)}))
    assert "class mix: p = 0.5\n" in text


def test_nothing_is_said_where_there_is_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, replay=Replay(rows=0, p_value=1.0, groups=()))
    assert "replay" not in text
    assert "class mix" not in text


def test_the_outputs_row_has_no_mmd(capsys: pytest.CaptureFixture[str]) -> None:
    layer = LayerScore(mmd2=None, statistic=2.0, p_value=0.5, p_adjusted=0.75)
    assert "(output)" in shown(capsys, layers={"(output)": layer})
