"""Rows that arrive are judged in batches and told of frame by frame, whole, in order, and whatever they hold."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.support.frames import frame_id
from tests.support.processor import WIDTH, judging_reference, load

from hydrophone.detectors import Reference
from hydrophone.detectors.samples import AttackGuess, SampleVerdicts
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.headers import from_record
from hydrophone.schemas.verdict import FrameVerdicts, RecordPlace, verdict_id
from hydrophone.streams.arrivals import BATCH_ROWS, ArrivalTasks, VerdictTask
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.effects import RowsArrived
from hydrophone.streams.outputs import Output, OutputTopics
from hydrophone.streams.record import Record
from hydrophone.streams.row_verdicts import LABEL_LIMIT, row_verdict, suspect_verdict
from hydrophone.streams.topics import RECORD_BYTES, VERDICTS
from hydrophone.streams.verdicts import Arrival, JudgedFrames, Listing, SampleJudge

MODEL = "m"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return load(judging_reference(tmp_path_factory.mktemp("reference"), MODEL))


def frame_of(rows: int, name: object = "frame", *, shift: float = 0.0, **parts: Any) -> Frame:
    rng = np.random.default_rng([7, *str(name).encode()])
    values = (rng.standard_normal((rows, WIDTH)) + shift).astype(np.float32)
    return Frame(MODEL, {"fc": values}, event_time_ms=np.array(5), frame_id=frame_id(name), **parts)


def arrived(frame: Frame, offset: int = 0, rows: Sequence[int] | None = None) -> RowsArrived:
    record = Record("t", 2, offset, 1_000 + offset, MODEL.encode(), b"")
    return RowsArrived(record, frame, 0, None if rows is None else np.array(rows))


def judge_of(reference: Reference, listing: Listing = "all") -> SampleJudge:
    return SampleJudge(ReferenceCatalog([reference]), OutputTopics("p."), listing=listing)


def judged(judge: SampleJudge, *arrivals: RowsArrived) -> JudgedFrames:
    return judge.judge([judge.arrival(one) for one in arrivals])


def events(outputs: Sequence[Output]) -> list[FrameVerdicts]:
    return [from_record(FrameVerdicts, output.value or b"", output.headers) for output in outputs]


def test_each_row_is_told_of_as_the_detectors_judge_it(reference: Reference) -> None:
    frame = frame_of(30, shift=1.5, sample_ids=[f"s{row}" for row in range(30)], client_ids=["c", None] * 15)
    found = judged(judge_of(reference), arrived(frame, 9))
    (event,) = events(found.outputs)
    assert reference.samples is not None
    expected = reference.samples.judge(frame)
    assert (event.model, str(event.frame_id), event.part, event.parts) == (MODEL, frame.frame_id, 0, 1)
    assert event.source == RecordPlace(topic="t", partition=2, offset=9)
    assert event.reference == reference.id
    assert event.id == verdict_id(event.source, reference.id)
    assert [verdict.row for verdict in event.verdicts] == list(range(30))
    assert [verdict.sample_id for verdict in event.verdicts] == frame.sample_ids
    assert [verdict.client_id for verdict in event.verdicts] == frame.client_ids
    names = ("accept", "abstain", "reject")
    assert [verdict.decision for verdict in event.verdicts] == [names[d] for d in expected.decision]
    assert len(set(expected.decision.tolist())) > 1, "some rows are suspicious"
    for verdict, suspicion, p_value in zip(event.verdicts, expected.suspicion, expected.p_value, strict=True):
        assert np.float32(verdict.suspicion) == suspicion
        assert np.float32(verdict.p_value) == p_value
    for name, values in expected.scores.items():
        told = [np.float32(verdict.scores.get(name, np.nan)) for verdict in event.verdicts]
        np.testing.assert_array_equal(told, values)
    assert event.judged.rows == 30
    assert (event.judged.accept, event.judged.reject) == (sum(expected.decision == 0), sum(expected.decision == 2))
    assert found.decisions == {(MODEL, name): (expected.decision == i).sum() for i, name in enumerate(names)}
    (output,) = found.outputs
    assert (output.topic, output.key) == (VERDICTS.full_name("p."), MODEL.encode())


def test_the_listing_decides_which_rows_are_told_and_never_the_counts(reference: Reference) -> None:
    frames = [frame_of(40, "clean", shift=0.0), frame_of(40, "odd", shift=4.0)]
    arrivals = [arrived(frame, offset) for offset, frame in enumerate(frames)]
    everything = events(judged(judge_of(reference, "all"), *arrivals).outputs)
    some = judged(judge_of(reference, "suspicious"), *arrivals)
    nothing = judged(judge_of(reference, "none"), *arrivals)
    suspicious = [[v for v in event.verdicts if v.decision != "accept"] for event in everything]
    assert [list(event.verdicts) for event in events(some.outputs)] == [rows for rows in suspicious if rows]
    assert len(suspicious[1]) > 30
    assert nothing.outputs == []
    assert some.decisions == nothing.decisions
    assert events(some.outputs)[-1].judged == everything[-1].judged


def test_a_frame_without_a_suspicious_row_is_not_told_of(reference: Reference) -> None:
    assert reference.samples is not None
    frame = frame_of(60)
    calm = np.flatnonzero(reference.samples.judge(frame).decision == 0)
    assert judged(judge_of(reference, "suspicious"), arrived(frame, 0, calm.tolist())).outputs == []


def test_frames_judged_together_are_told_of_apart_and_in_order(reference: Reference) -> None:
    """Whatever stands beside a row in a batch, and in however many frames; up to a batch's rounding."""
    wide = {"extra": np.zeros((5, 3), np.float32)}
    odd = frame_of(5, "wide")
    frames = [
        frame_of(20, "a"),
        Frame(MODEL, odd.layers | wide, event_time_ms=np.array(5), frame_id=frame_id("wide")),
        frame_of(1, "b", shift=3.0),
        frame_of(7, "c", client_ids=["x"] * 7),
    ]
    judge = judge_of(reference)
    arrivals = [arrived(frame, offset) for offset, frame in enumerate(frames)]
    together = events(judged(judge, *arrivals).outputs)
    alone = [event for one in arrivals for event in events(judged(judge, one).outputs)]
    assert [event.source.offset for event in together] == [0, 1, 2, 3]
    for one, other in zip(together, alone, strict=True):
        assert one.id == other.id
        assert [v.decision for v in one.verdicts] == [v.decision for v in other.verdicts]
        np.testing.assert_allclose(
            [v.suspicion for v in one.verdicts], [v.suspicion for v in other.verdicts], rtol=1e-4, atol=1e-5
        )
    assert [v.client_id for v in together[3].verdicts] == ["x"] * 7


def test_some_rows_of_a_frame_keep_their_numbers(reference: Reference) -> None:
    frame = frame_of(12, sample_ids=[f"s{row}" for row in range(12)])
    (event,) = events(judged(judge_of(reference), arrived(frame, 0, [3, 11])).outputs)
    assert [(v.row, v.sample_id) for v in event.verdicts] == [(3, "s3"), (11, "s11")]
    assert event.judged.rows == 2


def test_rows_that_are_not_finite_abstain_and_say_why(reference: Reference) -> None:
    frame = frame_of(3)
    frame.layers["fc"][1, 2] = np.inf
    (event,) = events(judged(judge_of(reference), arrived(frame)).outputs)
    verdict = event.verdicts[1]
    assert (verdict.decision, verdict.suspicion, verdict.p_value, verdict.scores) == ("abstain", None, None, {})
    assert "not_finite:layer.fc" in verdict.reasons
    assert event.verdicts[0].suspicion is not None
    assert json.loads(event.model_dump_json())["verdicts"][1]["p_value"] is None


def test_what_a_detector_raises_costs_the_verdict_and_not_the_partition(
    reference: Reference, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: object, _frame: Frame) -> SampleVerdicts:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(reference.samples), "judge", broken)
    with caplog.at_level(logging.ERROR):
        found = judged(judge_of(reference, "suspicious"), arrived(frame_of(2)), arrived(frame_of(1, "b"), 1))
    assert [[v.reasons for v in event.verdicts] for event in events(found.outputs)] == [
        [("failed:RuntimeError",)] * 2,
        [("failed:RuntimeError",)],
    ]
    assert found.decisions[MODEL, "abstain"] == 3
    assert "rows could not be judged" in caplog.text


def test_a_frame_too_large_for_a_record_is_told_in_parts(reference: Reference) -> None:
    names = ["\x01" * 5_000] * 9_000  # as JSON each character takes six bytes
    found = judged(judge_of(reference), arrived(frame_of(9_000, sample_ids=names, client_ids=names)))
    told = events(found.outputs)
    assert len(told) > 3
    assert all(len(output.value or b"") < RECORD_BYTES - 50_000 for output in found.outputs)
    assert [event.part for event in told] == list(range(len(told)))
    assert {event.parts for event in told} == {len(told)}
    assert len({event.id for event in told}) == len(told)
    assert [v.row for event in told for v in event.verdicts] == list(range(9_000))
    assert len(told[0].verdicts[0].sample_id or "") == LABEL_LIMIT


def test_an_attack_is_named_where_the_forest_would_name_it() -> None:
    guesses = [None, AttackGuess("one-step", 0.9, "fgsm", 0.7), AttackGuess(None, 0.4, None, 0.3)]
    verdicts = SampleVerdicts(
        decision=np.array([0, 2, 1], np.int8),
        suspicion=np.array([0.1, 9.0, np.nan], np.float32),
        p_value=np.array([0.5, 0.001, np.nan], np.float32),
        scores={"x": np.array([np.inf, 0.1, 2.0], np.float32)},
        attacks=guesses,
        reasons=[(), (), ("missing_tensor:output",)],
    )
    told = [row_verdict(verdicts, row, row) for row in range(3)]
    assert [verdict.scores for verdict in told] == [{}, {"x": 0.1}, {"x": 2.0}], "as short as float32 allows"
    assert told[0].attack is None
    assert told[1].attack is not None
    assert (told[1].attack.family, told[1].attack.name, told[1].attack.probability) == ("one-step", "fgsm", 0.7)
    assert told[2].attack is not None
    assert (told[2].attack.family, told[2].attack.family_probability) == (None, 0.4)
    short = suspect_verdict(verdicts, 1)
    assert (short.decision, short.suspicion, short.attack) == ("reject", 9.0, told[1].attack)


# Beside the loop


class Slow:
    """A judge that waits to be told to go on."""

    def __init__(self) -> None:
        from threading import Event  # noqa: PLC0415

        self.go = Event()
        self.batches: list[list[int]] = []

    def arrival(self, one: RowsArrived) -> Any:
        return SimpleNamespace(rows=len(one.frame), offset=one.record.offset)

    def judge(self, arrivals: Sequence[Arrival]) -> JudgedFrames:
        assert self.go.wait(20)
        self.batches.append([arrival.offset for arrival in arrivals])  # type: ignore[attr-defined]
        return JudgedFrames()


def test_tasks_are_bounded_in_rows_and_done_in_order() -> None:
    judge = Slow()
    tasks = ArrivalTasks(judge, threads=1, limit_rows=100)  # type: ignore[arg-type]
    made = []
    for number in range(3):
        task = VerdictTask()
        for part in range(2):
            tasks.collect(task, arrived(frame_of(20, number), 2 * number + part))
        assert not task.done(), "not while it collects"
        assert tasks.is_full == (number > 2)
        tasks.begin(task)
        made.append(task)
    assert tasks.is_full
    assert tasks.rows == 120
    judge.go.set()
    while not made[-1].done():
        tasks.wait(5)
    assert judge.batches == [[0, 1], [2, 3], [4, 5]]
    assert not tasks.is_full
    assert (tasks.rows, made[0].judged().outputs) == (0, [])
    assert made[0].judged().seconds > 0
    tasks.close()


def test_a_batch_that_is_done_early_is_known_to_be_done() -> None:
    """With two threads the second may end first; who tells of them keeps the order of the log."""
    first, second = Slow(), Slow()

    class Either:
        arrival = staticmethod(first.arrival)

        @staticmethod
        def judge(arrivals: Sequence[Arrival]) -> JudgedFrames:
            return (first if arrivals[0].offset == 0 else second).judge(arrivals)  # type: ignore[attr-defined]

    tasks = ArrivalTasks(Either(), threads=2)  # type: ignore[arg-type]
    made = []
    for number in range(2):
        made.append(VerdictTask())
        tasks.collect(made[-1], arrived(frame_of(3), number))
        tasks.begin(made[-1])
    second.go.set()
    tasks.wait(5)
    assert [task.done() for task in made] == [False, True]
    assert tasks.rows == 3
    first.go.set()
    tasks.wait(5)
    assert made[0].done()
    tasks.close()


def test_what_is_forgotten_is_never_begun() -> None:
    judge = Slow()
    tasks = ArrivalTasks(judge, threads=1)  # type: ignore[arg-type]
    for number in range(3):
        task = VerdictTask()
        tasks.collect(task, arrived(frame_of(2), number))
        tasks.begin(task)
    tasks.forget()
    judge.go.set()
    tasks.close()
    assert tasks.rows == 0
    assert len(judge.batches) <= 1, "what was under way ended unheard"


def test_a_task_is_large_at_a_batch() -> None:
    tasks, task = ArrivalTasks(Slow()), VerdictTask()  # type: ignore[arg-type]
    tasks.collect(task, arrived(frame_of(BATCH_ROWS - 1)))
    assert not task.is_large
    tasks.collect(task, arrived(frame_of(1)))
    assert task.is_large
    tasks.close()


# Contracts


def test_a_contract_asks_for_verdicts_where_there_are_detectors_and_somebody_listens(
    reference: Reference, tmp_path: Path
) -> None:
    from tests.support.processor import small_reference  # noqa: PLC0415

    plain = load(small_reference(tmp_path, "plain"))
    listening = ReferenceCatalog([reference, plain], judges_rows=True)
    deaf = ReferenceCatalog([reference])
    asked = [catalog.contract(model, 0) for catalog, model in ((listening, MODEL), (listening, "plain"), (deaf, MODEL))]
    assert [contract is not None and contract.is_judged for contract in asked] == [True, False, False]
