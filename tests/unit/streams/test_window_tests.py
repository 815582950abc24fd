"""Tests beside the loop: bounded, none refused, fewer rows only where they cannot keep pace."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import INVALID_SPAN
from tests.support.processor import small_reference
from tests.unit.streams.test_judge import MODEL, closed, judge_with

from hydrophone.detectors import Reference
from hydrophone.streams.judge import Examined, Judge, Question
from hydrophone.streams.window_tests import LoadRule, WindowTests


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Tests begin and do not end until it is set."""
    opened = threading.Event()
    plainly = Judge.examine

    def examine(self: Judge, question: Question) -> Examined:
        assert opened.wait(20)
        return plainly(self, question)

    monkeypatch.setattr(Judge, "examine", examine)
    yield opened
    opened.set()


@given(st.integers(20, 4_096), st.integers(20, 512), st.floats(0, 1e9), st.integers(1, 3_600_000))
def test_rows_are_k_until_a_window_has_waited_as_long_as_windows_last(
    k: int, least: int, waited_ms: float, window_ms: int
) -> None:
    rows = LoadRule(k, min(least, k), window_ms).rows(waited_ms)
    assert min(least, k) <= rows <= k
    if waited_ms < window_ms:
        assert rows == k
    elif waited_ms < 2 * window_ms:
        assert rows == max(k // 2, min(least, k))


def test_at_the_bound_it_says_so_and_still_refuses_no_window(gate: threading.Event) -> None:
    tests = WindowTests(judge_with(), LoadRule(64, 20, 60_000), limit=2)
    tasks = [tests.begin(closed(end=number * 60_000), INVALID_SPAN) for number in range(1, 4)]
    assert tests.is_full
    assert len(tests) == 3
    assert not any(task.done() for task in tasks)

    gate.set()

    assert [task.examined()[0].reason for task in tasks] == ["no_reference"] * 3
    assert not tests.is_full
    tests.close()


def test_a_window_that_waited_longer_than_windows_last_is_tested_on_fewer_rows(
    gate: threading.Event, tmp_path: Path
) -> None:
    #   |<- window ->|  the first test is not done when 2.5 windows have passed: 40 rows, then 20
    reference = Reference.load(small_reference(tmp_path, MODEL), device="cpu")
    judge = judge_with(reference)
    tests = WindowTests(judge, LoadRule(64, 20, 1), limit=2)
    first = tests.begin(closed(64), INVALID_SPAN)
    threading.Event().wait(0.05)
    second = tests.begin(closed(64, end=120_000), INVALID_SPAN)
    gate.set()

    scores = [judge.decide(task.examined()[0], None, None).score for task in (first, second)]

    assert [(score.k, score.nominal_k, score.counts.tested) for score in scores] == [(64, 64, 64), (20, 64, 20)]
    sample = closed(64).sample
    assert sample is not None
    assert scores[1].joint is not None
    head = sample.take(np.arange(20))
    assert scores[1].joint.p_value == reference.test(head).p_value, "the rows of smallest priority"
    tests.close()


def test_what_is_forgotten_is_not_begun(gate: threading.Event) -> None:
    tests = WindowTests(judge_with(), LoadRule(64, 20, 60_000), limit=2)
    running, waiting = (tests.begin(closed(end=end), INVALID_SPAN) for end in (60_000, 120_000))
    tests.forget()
    assert waiting.future.cancelled()
    assert not running.future.cancelled()
    assert len(tests) == 0
    gate.set()
    tests.close()
