"""Passes with dropout run beside the model: their numbers keep their bounds, and the model notices nothing."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits
from tests.unit.streams.test_tap import Kept, Later, Returns
from torch import Tensor, nn

from hydrophone.detectors.samples import mc_measures
from hydrophone.schemas.errors import SettingsError
from hydrophone.streams.mc_dropout import BACKLOG, ROWS_AT_ONCE, measures_of
from hydrophone.streams.tap import ActivationTap

MEASURES = ["variance", "entropy", "mutual_information", "confidence"]


class Cnn(nn.Module):
    """Of the kind the document measured: convolutions, dropout, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Dropout2d(0.25))
        self.fc = nn.Sequential(nn.Linear(12 * 36, 32), nn.ReLU(inplace=True), nn.Dropout(0.25))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.fc(self.conv(x).flatten(1)))
        return logits


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = torch.from_numpy(data.images[order] / 16).float().unsqueeze(1)
    return images, torch.from_numpy(data.target[order])


@pytest.fixture(scope="module")
def cnn(digits: tuple[Tensor, Tensor]) -> Cnn:
    """Trained on 1,000 digits until it knows nearly all of them."""
    torch.manual_seed(0)
    model = Cnn()
    images, labels = digits[0][:1000], digits[1][:1000]
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(6):
        for rows in torch.randperm(len(images)).split(50):
            adam.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            adam.step()
    adam.zero_grad()
    return model.eval()


def measured(model: nn.Module, x: Tensor, **options: Any) -> dict[str, Any]:
    sink = Kept()
    tap = ActivationTap(model, [".*fc"], publisher=sink, output="logits").mc_dropout(**options)
    with tap:
        model(x)
    assert tap.stats.errors == {}
    return dict(sink.frames[0].uncertainty or {})


def assert_within_bounds(measures: dict[str, Any], classes: int) -> None:
    assert list(measures) == MEASURES
    assert (measures["mutual_information"] >= 0).all()
    assert (measures["mutual_information"] <= measures["entropy"]).all()
    assert (measures["entropy"] <= np.float32(np.log(classes))).all()
    assert (measures["variance"] >= 0).all()
    assert (measures["confidence"] <= 1).all()
    assert (measures["confidence"] >= np.float32(1 / classes)).all()


def test_the_four_numbers_of_a_real_network_keep_their_bounds_and_say_how_sure_it_is(
    cnn: Cnn, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits[0][1000:], digits[1][1000:]
    on_digits = measured(cnn, images)
    assert_within_bounds(on_digits, 10)
    with torch.no_grad():
        wrong = (cnn(images).argmax(1) != labels).numpy()
    assert 0.005 < wrong.mean() < 0.15, "a real network: good, and not perfect"
    for name in ("variance", "entropy", "mutual_information"):
        assert on_digits[name][wrong].mean() > 1.5 * on_digits[name][~wrong].mean(), name
    assert on_digits["confidence"][wrong].mean() < on_digits["confidence"][~wrong].mean()
    on_halves = measured(cnn, (images[:200] + images[200:400]) / 2)
    assert on_halves["entropy"].mean() > on_digits["entropy"].mean(), "it is less sure of what it never saw"


def test_more_passes_than_fit_at_once_are_done_in_groups(cnn: Cnn, digits: tuple[Tensor, Tensor]) -> None:
    images = digits[0][:700]
    assert 7 * len(images) > 2 * ROWS_AT_ONCE
    assert_within_bounds(measured(cnn, images, passes=7), 10)


def test_the_mean_over_passes_is_near_the_models_own_answer(cnn: Cnn, digits: tuple[Tensor, Tensor]) -> None:
    """Dropout scales what it keeps: with hardly any of it the passes say what the model says."""
    images = digits[0][:50]
    with torch.no_grad():
        certain = cnn(images).softmax(1).max(1).values.numpy()
    np.testing.assert_allclose(measured(cnn, images, passes=30, p=1e-4)["confidence"], certain, atol=0.02)
    assert np.abs(measured(cnn, images, passes=30)["confidence"] - certain).mean() > 0.02, "p decides how much is lost"


def test_nothing_of_the_model_or_of_torch_changes(cnn: Cnn, digits: tuple[Tensor, Tensor]) -> None:
    images = digits[0][:20]
    alone = cnn(images)
    weights = {name: value.clone() for name, value in cnn.state_dict().items()}
    flags = [module.training for module in cnn.modules()]
    hooks = [len(module._forward_hooks) for module in cnn.modules()]
    before = torch.get_rng_state()
    with ActivationTap(cnn, ["fc"], publisher=Kept(), output="logits").mc_dropout():
        again = cnn(images)
    assert torch.equal(again, alone)
    assert again.grad_fn is not None, "gradients still flow"
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in cnn.modules()] == flags
    assert [len(module._forward_hooks) for module in cnn.modules()] == hooks
    assert all(torch.equal(value, weights[name]) for name, value in cnn.state_dict().items())
    assert all(value.grad is None for value in cnn.parameters())


def test_masks_are_drawn_anew_and_never_from_torchs_seed(cnn: Cnn, digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(1)
    first = measured(cnn, digits[0][:20])
    torch.manual_seed(1)
    second = measured(cnn, digits[0][:20])
    assert not np.array_equal(first["variance"], second["variance"])


def test_weights_that_are_replaced_later_are_the_twins_too(digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    model, sink = Cnn().eval(), Kept()
    with ActivationTap(model, ["fc"], publisher=sink, output="logits").mc_dropout(passes=5):
        model.head.weight = nn.Parameter(torch.zeros(10, 32))
        model.head.bias = nn.Parameter(torch.zeros(10))
        model.conv[1].running_var = torch.ones(12)
        model(digits[0][:4])
    measures = sink.frames[0].uncertainty
    assert measures is not None
    np.testing.assert_allclose(measures["entropy"], np.log(10), rtol=1e-6)
    assert (measures["variance"] == 0).all()


def test_other_peoples_hooks_do_not_hear_the_passes(cnn: Cnn, digits: tuple[Tensor, Tensor]) -> None:
    heard: list[int] = []
    handle = cnn.head.register_forward_hook(lambda _m, _a, output: heard.append(len(output)))
    measured(cnn, digits[0][:6])
    handle.remove()
    assert heard == [6]


def test_inputs_are_kept_as_they_were_when_the_passes_come_later(cnn: Cnn, digits: tuple[Tensor, Tensor]) -> None:
    images, sink = digits[0][:30].clone(), Later()
    expected = measured(cnn, images, passes=200)
    with ActivationTap(cnn, ["fc"], publisher=sink, output="logits").mc_dropout(passes=200):
        cnn(images)
        images.fill_(0)  # the service fills its buffer again
    measures = sink.build().uncertainty
    assert measures is not None
    np.testing.assert_allclose(measures["confidence"], expected["confidence"], atol=0.15)
    assert np.corrcoef(measures["confidence"], expected["confidence"])[0, 1] > 0.9


def test_frames_go_without_while_too_many_wait(
    cnn: Cnn, digits: tuple[Tensor, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    sink = Later()
    tap = ActivationTap(cnn, ["fc"], publisher=sink, output="logits").mc_dropout(passes=3)
    with tap, caplog.at_level(logging.WARNING):
        for _ in range(BACKLOG + 2):
            cnn(digits[0][:3])
        sink.build()
        cnn(digits[0][:3])
        sink.build()
    assert [frame.uncertainty is not None for frame in sink.frames] == [True] * BACKLOG + [False] * 2 + [True]
    assert tap.stats.without_uncertainty == 2
    assert tap.stats.published == BACKLOG + 3
    assert sum("do not keep pace" in message for message in caplog.messages) == 1


def test_a_pass_that_fails_costs_the_measures_and_not_the_frame(cnn: Cnn) -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.drop(self.fc(x)) if self.training else self.fc(x)
            return logits

    sink, model = Kept(), Stubborn().eval()
    tap = ActivationTap(model, ["fc"], publisher=sink, output="logits").mc_dropout()
    with tap:
        model(torch.zeros(5, 4))
    assert sink.frames[0].uncertainty is None
    assert sink.frames[0].output is not None
    assert tap.stats.errors == {"ValueError": 1}


def test_a_model_without_dropout_can_name_layers_to_drop_from() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    sink = Kept()
    with ActivationTap(model, ["0"], publisher=sink, output="logits").mc_dropout(passes=20, after=["1"]):
        model(torch.randn(8, 4))
    measures = dict(sink.frames[0].uncertainty or {})
    assert_within_bounds(measures, 3)
    assert (measures["variance"] > 0).any()


def test_a_transformers_dropout_is_at_work_too() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = layer, nn.Linear(8, 3)

        def forward(self, *, tokens: Tensor, scale: float) -> dict[str, Tensor]:
            return {"logits": self.head(self.body(tokens * scale).mean(1))}

    sink, model = Kept(), Tokens().eval()
    tap = ActivationTap(model, ["body"], publisher=sink, output="logits").mc_dropout(passes=20)
    with tap:
        model(tokens=torch.randn(6, 5, 8), scale=2.0)
    assert tap.stats.errors == {}
    measures = dict(sink.frames[0].uncertainty or {})
    assert_within_bounds(measures, 3)
    assert (measures["variance"] > 0).all()


def test_batches_in_training_mode_are_skipped_as_ever(cnn: Cnn, digits: tuple[Tensor, Tensor]) -> None:
    sink, model = Kept(), Cnn()
    tap = ActivationTap(model, ["fc"], publisher=sink, output="logits").mc_dropout()
    with tap:
        model(digits[0][:4])
    assert not sink.frames
    assert (tap.stats.skipped_training, tap.stats.without_uncertainty) == (1, 0)


def test_what_cannot_be_done_is_refused_when_asked_for(cnn: Cnn) -> None:
    def tap(model: nn.Module = cnn, **options: Any) -> ActivationTap:
        return ActivationTap(model, [".*"], publisher=Kept(), **{"output": "logits"} | options)

    with pytest.raises(SettingsError, match="say `output`"):
        tap(output=None).mc_dropout()
    with pytest.raises(SettingsError, match="`passes` must be at least 2; got 1"):
        tap().mc_dropout(passes=1)
    with pytest.raises(SettingsError, match=r"`p` must lie between 0 and 1; got 1\.5"):
        tap().mc_dropout(p=1.5)
    with pytest.raises(SettingsError, match=r"no `nn.Dropout`; name layers"):
        tap(nn.Sequential(nn.Linear(2, 2))).mc_dropout()
    with pytest.raises(SettingsError, match="matches no layer"):
        tap().mc_dropout(after=["nowhere"])
    with pytest.raises(SettingsError, match="needs a model that can be copied"):
        tap(
            nn.Sequential(nn.Dropout(), Returns(iter(())), Returns(torch.get_default_dtype), Returns(_Lock()))
        ).mc_dropout()


class _Lock:
    def __deepcopy__(self, _memo: object) -> "_Lock":
        raise TypeError("cannot pickle a lock")


def test_the_measures_are_those_that_the_detectors_compute() -> None:
    """Two writings of one definition: the tap's service has none of the detectors' libraries."""
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7) / 2, (50, 40))
    theirs = mc_measures(torch.from_numpy(probabilities))
    for name, values in measures_of(probabilities).items():
        np.testing.assert_allclose(values, theirs[name].numpy(), rtol=1e-5, atol=1e-7)


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(2, 6)),
        elements=st.floats(0, 1e6).map(lambda value: 0.0 if value < 1e-6 else value),
    )
)
def test_the_bounds_hold_for_any_probabilities(weights: np.ndarray[Any, Any]) -> None:
    total = weights.sum(axis=2, keepdims=True)
    uniform = np.full_like(weights, 1 / weights.shape[2])
    probabilities = np.divide(weights, total, out=uniform, where=total > 0)
    assert_within_bounds(measures_of(probabilities), weights.shape[2])
