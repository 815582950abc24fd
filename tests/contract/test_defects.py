"""Eleven defects of the layer-wise method's public sample code, each as a promise of ours.

The sample code is `amazon-science/detecting-adversarial-samples-using-sagemaker`, with the blog post it belongs to.
Each test says in one sentence what went wrong there; its name says what holds here.
"""

import ast
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.events import window_score
from tests.support.frames import T0, frame_id, gaussian_frame, plain_frame

from hydrophone.detectors import Reference, fit_reference, mmd_permutation_test
from hydrophone.detectors.fitting import MIN_ROWS
from hydrophone.schemas.frame import Frame, Heartbeat
from hydrophone.schemas.identity import FramePriorities
from hydrophone.schemas.sagemaker import constraint_violations, job_files, message, metric_lines
from hydrophone.schemas.score import WindowScore
from hydrophone.streams.alerting import decide
from hydrophone.streams.budget import alarm_rules
from hydrophone.streams.catalog import ReferenceCatalog
from hydrophone.streams.contract import Contract
from hydrophone.streams.effects import WindowClosed
from hydrophone.streams.judge import Judge, SampleRules
from hydrophone.streams.processor import PartitionState, StreamRules, recover, step
from hydrophone.streams.record import Record
from hydrophone.streams.settings import load_settings
from hydrophone.streams.watermark import TimeRules

ROOT = Path(__file__).parents[2]
DOTTED = re.compile(r"torch(\.\w+)+")
MODEL = "m"
K = 64
WINDOW_MS = 1_000
RULES = StreamRules(
    TimeRules(window_ms=WINDOW_MS, lateness_ms=0, future_skew_ms=0, expected_delay_ms=0, idle_ms=1),
    lambda *_: Contract({"fc": 8}),
    FramePriorities(b"key"),
    K,
)


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Of 8 features; a baseline of its own."""
    frame = gaussian_frame(900, 1)
    return fit_reference([Frame(MODEL, frame.layers, event_time_ms=np.array(0))], permutations=199, device="cpu")


def requests(window: int, values: np.ndarray) -> Frame:
    """One frame of named requests that falls into a window."""
    return Frame(
        MODEL,
        {"fc": values.astype(np.float32)},
        event_time_ms=np.full(len(values), window * WINDOW_MS),
        frame_id=frame_id(f"window {window}"),
        sample_ids=[f"{window}/{row}" for row in range(len(values))],
    )


def closed_windows(frames: Sequence[Frame]) -> Iterator[WindowClosed]:
    """What the processor's heart makes of a log of frames, one record each."""
    state: PartitionState = recover("t", 0, 0, None)
    last = int(max(frame.event_time_ms.max() for frame in frames)) + 2 * WINDOW_MS
    for offset, frame in enumerate([*frames, Heartbeat(MODEL, last)]):
        record = Record("t", 0, offset, last, MODEL.encode(), frame.encode())
        state, effects = step(state, record, 0, RULES)
        yield from (effect for effect in effects if isinstance(effect, WindowClosed))


def scored(reference: Reference, frames: Sequence[Frame]) -> list[WindowScore]:
    judge = Judge(
        ReferenceCatalog([reference]),
        topic="t",
        sample=SampleRules(K, "key"),
        false_alarms_per_month=1.0,
        window_ms=WINDOW_MS,
        evidence=None,
        detection_rate=True,
    )
    return [judge.judge(closed, None, None).score for closed in closed_windows(frames)]


def attacked(window: int, rows: int = 60, hostile: Sequence[int] = range(12)) -> Frame:
    values = np.random.default_rng(window).standard_normal((rows, 8))
    values[list(hostile)] += 4.0
    return requests(window, values)


def test_defect_1_one_json_object_a_line(reference: Reference) -> None:
    """There, three objects stood on one line of the `.jsonl`, which no reader of lines can read."""
    scores = scored(reference, [attacked(0), attacked(1)])
    text = job_files(scores, schedule="hourly")["cloudwatch_metrics.jsonl"]
    lines = text.split("\n")
    assert lines.pop() == "", "the last line ends, too"
    assert len(lines) == 3 * len(scores) == 6
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_defect_2_a_baseline_of_zero_is_a_baseline() -> None:
    """There, a baseline of 0, the usual one, ended the job with a NameError."""
    score = window_score(start_ms=T0, p_value=0.001).model_copy(
        update={"detection_rate": 0.5, "baseline_detection_rate": 0.0}
    )
    files = job_files([score], schedule="hourly")
    values = {m["MetricName"]: m["Value"] for m in map(json.loads, files["cloudwatch_metrics.jsonl"].splitlines())}
    assert values["LADIS Baseline Detection Rate"] == 0.0
    assert values["LADIS Detection Rate"] == 50.0
    assert "baseline 0%" in files["constraint_violations.json"]


def test_defect_3_suspects_are_rows_of_the_window_that_was_scored(reference: Reference) -> None:
    """There, scores of new rows were looked up among all rows: from the second job on the wrong images were shown."""
    hostile = {0: range(12), 1: range(30, 42), 2: range(48, 60)}
    scores = scored(reference, [attacked(window, hostile=rows) for window, rows in hostile.items()])
    assert len(scores) == 3
    for window, score in enumerate(scores):
        assert score.rejected
        planted = {f"{window}/{row}" for row in hostile[window]}
        assert {suspect.sample_id for suspect in score.suspects[:10]} <= planted
        assert {(suspect.frame_id.hex, suspect.offset) for suspect in score.suspects} == {
            (frame_id(f"window {window}").replace("-", ""), window)
        }
        steps = constraint_violations([score], layout="reference")["violations"]
        assert {violation["description"]["Step"] for violation in steps} == {window}


def test_defect_4_a_window_of_few_rows_is_an_answer(reference: Reference) -> None:
    """There, fewer than ten queries ended the job with an IndexError."""
    for rows in range(1, 10):
        [score] = scored(reference, [attacked(0, rows=rows, hostile=[0])])
        assert (score.status, score.reason, score.rejected) == ("not_tested", "too_few_rows", False)
        assert score.detection_rate is None
        assert message([score]).startswith("Completed: ")
        [requests_processed] = map(json.loads, metric_lines([score], schedule="hourly"))
        assert requests_processed["Value"] == rows


def test_defect_5_an_excess_over_the_baseline_alone_is_no_alarm() -> None:
    """There, any detection rate at or above the baseline rang."""
    rules = alarm_rules(false_alarms_per_month=1.0, window_ms=60_000, permutations=999)
    excess = {"detection_rate": 0.3, "baseline_detection_rate": 0.01, "rejected": False}
    scores = [
        window_score(start_ms=T0 + 1000 * i, p_value=0.2).model_copy(update=excess)
        for i in range(rules.immediate.n + 1)
    ]
    state = None
    for score in scores:
        state, alert = decide(rules, state, score, shared=0.1)
        assert alert is None
    assert constraint_violations(scores) == {"violations": []}
    assert message(scores).startswith("Completed: ")


def test_defect_6_settings_from_the_environment_have_types(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There, the environment's values stayed text: "False" was true, and "10" no number to count to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDROPHONE_DETECTION_RATE", "False")
    monkeypatch.setenv("HYDROPHONE_METRICS_PORT", "10")
    monkeypatch.setenv("HYDROPHONE_FALSE_ALARMS_PER_MONTH", "0.5")
    settings = load_settings()
    assert settings.detection_rate is False
    assert list(range(settings.metrics_port or 0)) == list(range(10))
    assert settings.false_alarms_per_month == 0.5


def test_defect_7_every_name_of_torch_that_is_used_exists_in_the_torch_that_is_installed() -> None:
    """There, `torch.solve` was called, which torch has long dropped."""
    used = {name for path in ROOT.glob("*/hydrophone/**/*.py") for name in torch_names(ast.parse(path.read_text()))}
    assert {"torch.cat", "torch.linalg.svd"} <= used, "the search finds names"
    assert "torch.solve" not in used
    gone = [name for name in used if not reachable(name)]
    assert gone == []


def torch_names(tree: ast.AST) -> Iterator[str]:
    """Dotted names that begin with `torch`, the longest of each."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner and DOTTED.fullmatch(name := ast.unparse(node)):
            yield name


def reachable(name: str) -> bool:
    try:
        functools.reduce(getattr, name.split(".")[1:], torch)
    except AttributeError:
        return False
    return True


def test_defect_8_the_most_suspicious_rows_come_first(reference: Reference) -> None:
    """There, an ascending sort kept the hundred least suspicious rows."""
    window = attacked(0)
    result = reference.test(window)
    told = [suspect.score for suspect in result.suspects]
    assert told == sorted(result.row_scores, reverse=True)[: len(told)]
    assert {suspect.row for suspect in result.suspects} <= set(range(12))
    scores = scored(reference, [window, attacked(1)])
    exported = [v["description"]["Score"] for v in constraint_violations(scores, layout="reference")["violations"]]
    assert exported == sorted(exported, reverse=True)
    assert exported[0] == max(suspect.score for score in scores for suspect in score.suspects)


def test_defect_9_a_p_value_is_never_zero(reference: Reference) -> None:
    """There, p was one less the rank's share, 0 for what is farthest from the null."""
    values = 1e6 + 1e3 * np.random.default_rng(0).standard_normal((100, 8))
    far = reference.test(Frame(MODEL, {"fc": values}, event_time_ms=np.array(0)))
    assert far.p_value == 1 / 200
    assert all(0 < layer.p_value <= layer.p_adjusted for layer in far.layers.values())
    apart = mmd_permutation_test(np.zeros((40, 3)), np.full((40, 3), 1e3), permutations=99, device="cpu")
    assert apart.p_value == 1 / 100


@pytest.mark.parametrize(("rows", "fit_share", "most"), [(600, 1 / 3, 2_000), (601, 0.5, 2_000), (997, 0.25, 300)])
def test_defect_10_the_split_has_exactly_the_sizes_it_states(rows: int, fit_share: float, most: int) -> None:
    """There, an off-by-one put one batch more into one side of the split."""
    numbered = rows * np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)
    numbered[:, 0] = np.arange(rows)
    fitted = fit_reference(
        [plain_frame({"fc": numbered})], permutations=19, fit_share=fit_share, max_reference_rows=most, device="cpu"
    )
    sizes, arrays = fitted.manifest.sizes, fitted._artefact.arrays
    assert sizes.fit == round(rows * fit_share) >= MIN_ROWS
    assert sizes.reference == min(rows - sizes.fit, most) == len(arrays["reference.fc"])
    assert sizes.fit + sizes.reference + sizes.excluded_surplus == rows
    kept = arrays["reference.fc"][:, 0].tolist()
    assert len(set(kept)) == len(kept)
    if sizes.excluded_surplus == 0:
        others = np.setdiff1d(numbered[:, 0], kept)
        assert len(others) == sizes.fit
        assert arrays["fit.fc.mean"][0] == pytest.approx(others.mean()), "fitted on the others, on all of them"


def test_defect_11_a_window_keeps_a_bounded_sample_however_long_it_lasts() -> None:
    """There, the window was a list that grew with every request and never ended."""
    state: PartitionState = recover("t", 0, 0, None)
    held = []
    for offset in range(60):
        values = np.random.default_rng(offset).standard_normal((50, 8)).astype(np.float32)
        frame = Frame(MODEL, {"fc": values}, event_time_ms=np.full(50, 7), frame_id=frame_id(offset))
        state, _ = step(state, Record("t", 0, offset, 100, MODEL.encode(), frame.encode()), 0, RULES)
        [window] = state.windows.values()
        held.append(window.sample._held)
    assert window.seen == 3_000
    assert max(held) < 2 * K
