"""The promise: a model that is listened to gives the same outputs, never fails for it, and keeps nothing alive."""

import copy
import gc
import io
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hydrophone.schemas import Frame
from hydrophone.schemas.errors import SettingsError
from hydrophone.streams.frame_sink import FrameSink
from hydrophone.streams.frame_writer import FrameWriter
from hydrophone.streams.tap import ActivationTap


class Kept:
    """A sink that keeps what it is given."""

    model = "m"

    def __init__(self, *, answer: bool = True) -> None:
        self.frames: list[Frame] = []
        self._answer = answer

    def publish(self, frame: Frame) -> bool:
        self.frames.append(frame)
        return self._answer

    def close(self, timeout_s: float = 10) -> int:
        return 0


class Later(Kept):
    """A sink that builds frames only when asked to, as the publisher's thread does."""

    def __init__(self) -> None:
        super().__init__()
        self._builds: list[Callable[[], Frame]] = []

    def offer(self, rows: int, build: Callable[[], Frame]) -> bool:
        self._builds.append(build)
        return True

    def build(self) -> Frame:
        self.frames += [build() for build in self._builds]
        self._builds.clear()
        return self.frames[-1]


class Broken(Kept):
    def publish(self, frame: Frame) -> bool:
        raise RuntimeError("the sink is broken")


class Net(nn.Module):
    """Convolutions with in-place ReLUs, one of them shared, and batch norm: what real models do to their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 5, 3)
        self.head = nn.Linear(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        logits: Tensor = self.head(self.relu(self.second(x)).mean((2, 3)))
        return logits


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    net = Net()
    net.norm.running_mean = torch.randn(4)
    return net.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 10, 10, generator=torch.Generator().manual_seed(1))


class Marker:
    """Lives as long as the autograd graph that holds it."""


class Returns(nn.Module):
    """Gives back whatever it was made with."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, _x: Tensor) -> Any:
        return self.value


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def assert_close(array: np.ndarray[Any, Any] | None, expected: Tensor) -> None:
    """To float32's own precision, as averages and softmax may be summed in another order."""
    assert array is not None
    torch.testing.assert_close(torch.from_numpy(array), expected)


def captured(layer: nn.Module, x: Tensor, **options: Any) -> np.ndarray[Any, Any]:
    """What the tap makes of one layer's output."""
    sink = Kept()
    model = nn.Sequential(layer).eval()
    with ActivationTap(model, ["0"], publisher=sink, **options) as tap:
        model(x)
    assert tap.stats.errors == {}
    return sink.frames[0].layers["0"]


# What a frame holds


def test_a_frame_holds_every_matched_layer_pooled_and_the_models_probabilities(net: Net, images: Tensor) -> None:
    sink = Kept()
    before_ms = time.time_ns() // 1_000_000
    with ActivationTap(net, [r"conv|second", "head"], publisher=sink, output="logits"):
        logits = net(images)
    (frame,) = sink.frames
    assert frame.model == "m"
    assert list(frame.layers) == ["conv", "second", "head"]
    with torch.no_grad():
        # Before batch norm and the in-place ReLU had their way with it.
        assert_close(frame.layers["conv"], net.conv(images).mean((2, 3)))
        np.testing.assert_array_equal(frame.layers["head"], logits.numpy())
        assert_close(frame.output, logits.softmax(1))
        assert frame.predicted is not None
        assert frame.predicted.tolist() == logits.argmax(1).tolist()
    assert frame.event_time_ms.shape == (8,)
    assert before_ms <= frame.event_time_ms[0] <= time.time_ns() // 1_000_000


def test_probabilities_pass_as_they_are_and_none_leaves_the_output_out() -> None:
    probabilities = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    model = nn.Sequential(Returns(probabilities)).eval()
    as_is, without = Kept(), Kept()
    one = ActivationTap(model, ["0"], publisher=as_is, output="probabilities")
    with one, ActivationTap(model, ["0"], publisher=without):
        model(torch.zeros(2, 1))
    assert as_is.frames[0].output is not None
    np.testing.assert_array_equal(as_is.frames[0].output, probabilities.numpy())
    assert without.frames[0].output is None
    assert without.frames[0].predicted is None


@pytest.mark.parametrize(
    ("returned", "output"),
    [
        (torch.tensor([[0.0], [1.0986123]]), "logits"),
        (torch.tensor([0.0, 1.0986123]), "logits"),
        (torch.tensor([[0.5], [0.75]]), "probabilities"),
    ],
)
def test_a_single_column_is_the_second_of_two_classes(returned: Tensor, output: Any) -> None:
    sink = Kept()
    model = nn.Sequential(Returns(returned)).eval()
    with ActivationTap(model, ["0"], publisher=sink, output=output):
        model(torch.zeros(2, 1))
    assert_close(sink.frames[0].output, torch.tensor([[0.5, 0.5], [0.25, 0.75]]))


@pytest.mark.parametrize(
    ("layer", "shape", "axes"),
    [
        (nn.Conv2d(3, 4, 3), (2, 3, 8, 8), (2, 3)),
        (nn.Conv3d(3, 4, 3), (2, 3, 5, 5, 5), (2, 3, 4)),
        (nn.LayerNorm(6), (2, 5, 6), (1,)),
        (nn.Conv1d(3, 4, 2), (2, 3, 7), (2,)),
        (nn.BatchNorm1d(3), (2, 3, 7), (2,)),
        (nn.MaxPool1d(2), (2, 3, 7), (2,)),
        (nn.Linear(6, 5), (2, 6), ()),
    ],
)
def test_maps_are_averaged_over_space_sequences_over_tokens(
    layer: nn.Module, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    x = torch.randn(shape)
    with torch.no_grad():
        expected = layer.eval()(x)
    assert_close(captured(layer, x), expected.mean(axes) if axes else expected)


def test_a_pool_of_ones_own_may_return_a_view() -> None:
    tokens = torch.randn(2, 5, 6)
    expected = tokens[:, 1].clone()
    array = captured(Returns(tokens), torch.zeros(1), pool=lambda output: output[:, 1])
    tokens.zero_()
    np.testing.assert_array_equal(array, expected.numpy())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: (t, torch.zeros(9, 9)),
        lambda t: [None, t],
        lambda t: {"loss": torch.zeros(()), "logits": t},
        lambda t: {"hidden": t},
        lambda t: ((t,), None),
    ],
)
def test_the_first_tensor_of_a_nested_output_is_taken(wrap: Callable[[Tensor], object]) -> None:
    inner = torch.randn(2, 3)
    np.testing.assert_array_equal(captured(Returns(wrap(inner)), torch.zeros(1)), inner.numpy())


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, np.float16),
        (torch.bfloat16, np.float32),
        (torch.float64, np.float32),
        (torch.float32, np.float32),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 4)])
def test_float16_stays_and_every_other_type_becomes_float32(
    dtype: torch.dtype, expected: type, shape: tuple[int, ...]
) -> None:
    array = captured(Returns(torch.ones(shape, dtype=dtype)), torch.zeros(1))
    assert array.dtype == expected
    np.testing.assert_array_equal(array, np.ones((2, 3)))


def test_the_mean_of_a_bfloat16_map_is_taken_in_float32() -> None:
    halves = torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16).reshape(1, 1, 1, 2)  # neighbours in bfloat16
    np.testing.assert_array_equal(captured(Returns(halves), torch.zeros(1)), [[1.00390625]])


def test_a_large_float16_map_has_a_finite_mean() -> None:
    array = captured(Returns(torch.full((1, 2, 60, 60), 100.0, dtype=torch.float16)), torch.zeros(1))
    np.testing.assert_array_equal(array, [[100, 100]])


def test_a_layer_that_runs_twice_is_captured_the_last_time(net: Net, images: Tensor) -> None:
    sink = Kept()
    with ActivationTap(net, ["relu"], publisher=sink):
        net(images)
    assert sink.frames[0].layers["relu"].shape == (8, 5)


def test_a_frame_can_be_encoded_and_written(net: Net, images: Tensor, tmp_path: Path) -> None:
    with FrameWriter(tmp_path, model="m") as writer, ActivationTap(net, ["conv"], publisher=writer, output="logits"):
        net(images)
        net(images)
    (path,) = tmp_path.iterdir()
    assert len(Frame.decode(path.read_bytes())) == 16


# What the model must not notice


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
def test_outputs_are_the_same_bit_for_bit(net: Net, images: Tensor, mode: Callable[[], Any]) -> None:
    sink = Later()
    with mode():
        plain = net(images)
        with ActivationTap(net, [".*"], publisher=sink, output="logits") as tap:
            tapped = net(images)
        again = net(images)
    assert torch.equal(plain, tapped)
    assert torch.equal(plain, again)
    assert tapped.requires_grad == plain.requires_grad
    assert tap.stats.errors == {}
    assert sink.build().layers.keys() == {"conv", "norm", "relu", "second", "head"}


def test_a_transformer_block_gives_the_same_outputs_bit_for_bit() -> None:
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(3, 5, 16)
    sink = Kept()
    plain = block(x)  # gradients are on, so this is not the fused path, which any hook turns off
    with ActivationTap(block, ["self_attn", "linear1", "norm2"], publisher=sink):
        tapped = block(x)
    assert torch.equal(plain, tapped)
    assert {name: layer.shape for name, layer in sink.frames[0].layers.items()} == {
        "self_attn": (3, 16),
        "linear1": (3, 32),
        "norm2": (3, 16),
    }
    assert_close(sink.frames[0].layers["norm2"], plain.mean(1).detach())


def test_gradients_flow_as_before(net: Net, images: Tensor) -> None:
    images.requires_grad_()
    (plain,) = torch.autograd.grad(net(images).sum(), images)
    with ActivationTap(net, [".*"], publisher=Kept(), output="logits"):
        (tapped,) = torch.autograd.grad(net(images).sum(), images)
    assert torch.equal(plain, tapped)


def test_no_graph_is_kept_alive(net: Net, images: Tensor) -> None:
    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.marker = Marker()
            alive.append(weakref.ref(ctx.marker))
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0]

    alive: list[weakref.ref[Marker]] = []
    sink = Later()
    with ActivationTap(net, [".*"], publisher=sink, output="logits"):
        logits = net(Marked.apply(images.requires_grad_()))
        assert alive[0]() is not None
        del logits
        gc.collect()
        assert alive[0]() is None
    sink.build()


def test_what_the_caller_writes_afterwards_does_not_reach_the_frame(net: Net, images: Tensor) -> None:
    sink = Later()
    with torch.no_grad(), ActivationTap(net, ["head"], publisher=sink, output="logits"):
        logits = net(images)
        before = logits.clone()
        logits.zero_()
    frame = sink.build()
    np.testing.assert_array_equal(frame.layers["head"], before.numpy())
    assert_close(frame.output, before.softmax(1))


def test_all_hooks_are_gone_after_closing(net: Net, images: Tensor) -> None:
    sink = Kept()
    with pytest.raises(RuntimeError), ActivationTap(net, [".*"], publisher=sink):
        net(images[0, 0])
    assert hooks_of(net) == 0
    tap = ActivationTap(net, [".*"], publisher=sink)
    assert tap.attach().attach() is tap
    assert hooks_of(net) == 7
    tap.remove()
    tap.remove()
    assert hooks_of(net) == 0
    net(images)
    assert sink.frames == []


def test_a_copied_or_saved_model_does_not_publish(net: Net, images: Tensor) -> None:
    sink = Kept()
    with ActivationTap(net, ["conv"], publisher=sink):
        twin = copy.deepcopy(net)
        saved = io.BytesIO()
        torch.save(net, saved)
        saved.seek(0)
        loaded = torch.load(saved, weights_only=False)
        assert torch.equal(twin(images), loaded(images))
        assert sink.frames == []
        net(images)
    assert len(sink.frames) == 1


# What may go wrong


@pytest.mark.parametrize(
    ("build", "sink", "kind"),
    [
        (lambda: Returns("no tensor at all"), Kept(), "TypeError"),
        (lambda: Returns(torch.zeros(1, 1, 1, 1, 1, 1)), Kept(), "ValueError"),
        (lambda: Returns(torch.zeros(2, 3)), Broken(), "RuntimeError"),
    ],
)
def test_an_error_is_counted_said_once_and_kept_from_the_caller(
    build: Callable[[], nn.Module], sink: FrameSink, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(build()).eval()
    with ActivationTap(model, ["0"], publisher=sink) as tap:
        for _ in range(3):
            model(torch.zeros(1))
    assert tap.stats.errors == {kind: 3}
    assert tap.stats.published == 0
    assert sum("could not capture" in record.getMessage() for record in caplog.records) == 1


def test_layers_that_disagree_on_their_rows_make_no_frame() -> None:
    model = nn.Sequential(Returns(torch.zeros(4, 3)), Returns(torch.zeros(2, 3))).eval()
    sink = Kept()
    with ActivationTap(model, [".*"], publisher=sink) as tap:
        model(torch.zeros(1))
    assert tap.stats.errors == {"ValueError": 1}
    assert sink.frames == []


def test_an_output_with_more_than_classes_is_an_error_and_not_copied() -> None:
    model = nn.Sequential(Returns(torch.zeros(4, 3, 2))).eval()
    with ActivationTap(model, ["0"], publisher=Kept(), output="logits") as tap:
        model(torch.zeros(1))
    assert tap.stats.errors == {"ValueError": 1}


def test_a_refusal_of_the_sink_is_counted(net: Net, images: Tensor) -> None:
    with ActivationTap(net, ["conv"], publisher=Kept(answer=False)) as tap:
        net(images)
    assert (tap.stats.published, tap.stats.dropped) == (0, 1)


def test_an_empty_batch_makes_no_frame_and_no_error(net: Net) -> None:
    sink = Kept()
    with torch.no_grad(), ActivationTap(net, ["head"], publisher=sink) as tap:
        net(torch.zeros(0, 3, 10, 10))
    assert sink.frames == []
    assert tap.stats.errors == {}


def test_a_pass_that_fails_midway_leaves_nothing_for_the_next() -> None:
    class Detour(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Identity(), nn.Identity()

        def forward(self, x: Tensor, *, fails: bool) -> Any:
            if fails:
                self.first(x)
                raise ValueError("out of luck")
            return self.last(x)

    model = Detour().eval()
    sink = Kept()
    with ActivationTap(model, [".*"], publisher=sink) as tap:
        with pytest.raises(ValueError, match="out of luck"):
            model(torch.zeros(8, 2), fails=True)
        assert sink.frames == []
        model(torch.ones(3, 2), fails=False)
    (frame,) = sink.frames
    assert {name: layer.shape for name, layer in frame.layers.items()} == {"last": (3, 2)}
    assert tap.stats.errors == {}


def test_a_layer_called_by_itself_is_not_captured(net: Net, images: Tensor) -> None:
    sink = Kept()
    with ActivationTap(net, ["conv"], publisher=sink) as tap:
        net.conv(images)
        assert sink.frames == []
        net(images[:2])
        net.conv(images)
    assert [len(frame) for frame in sink.frames] == [2]
    assert tap.stats.published == 1


def test_a_layer_that_did_not_run_is_absent_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.always, self.never = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Any:
            return self.always(x)

    model = Branching().eval()
    sink = Kept()
    with ActivationTap(model, [".*"], publisher=sink) as tap:
        model(torch.zeros(3, 2))
        model(torch.zeros(3, 2))
    assert list(sink.frames[0].layers) == ["always"]
    assert tap.stats.incomplete == 2
    assert caplog.text.count("never") == 1


def test_training_is_skipped_counted_and_said_once(net: Net, images: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    sink = Kept()
    net.train()
    with ActivationTap(net, ["conv"], publisher=sink) as tap:
        net(images)
        net(images)
        net.eval()
        net(images)
    assert len(sink.frames) == 1
    assert tap.stats.skipped_training == 2
    assert caplog.text.count("call .eval()") == 1


# Requests


def test_ids_name_the_rows_of_the_passes_inside_a_request(net: Net, images: Tensor) -> None:
    sink = Kept()
    with ActivationTap(net, ["conv"], publisher=sink) as tap:
        with tap.request(sample_ids=np.arange(8), client_ids=["eve", None] * 4):
            net(images)
        with tap.request(sample_ids=list("abcdefgh")):
            net(images)
        net(images)
    named, anonymous, outside = sink.frames
    assert list(named.sample_ids or ()) == [str(row) for row in range(8)]
    assert list(named.client_ids or ()) == ["eve", None] * 4
    assert list(anonymous.sample_ids or ()) == list("abcdefgh")
    assert anonymous.client_ids is None
    assert outside.sample_ids is outside.client_ids is None


@pytest.mark.parametrize("ids", [{"sample_ids": ["one"]}, {"sample_ids": list("abcdefgh"), "client_ids": ["one"]}])
def test_ids_that_do_not_fit_are_dropped_and_the_frame_goes(
    net: Net, images: Tensor, ids: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    sink = Kept()
    with ActivationTap(net, ["conv"], publisher=sink) as tap, tap.request(**ids):
        net(images)
        net(images)
    assert all(frame.sample_ids is None and frame.client_ids is None for frame in sink.frames)
    assert (tap.stats.published, tap.stats.ids_dropped) == (2, 2)
    assert caplog.text.count("one id per row") == 1


def test_ids_that_are_no_list_are_an_error_the_caller_does_not_meet(net: Net, images: Tensor) -> None:
    sink = Kept()
    with ActivationTap(net, ["conv"], publisher=sink) as tap, tap.request(sample_ids=7):  # type: ignore[arg-type]
        net(images)
    assert tap.stats.errors == {"TypeError": 1}
    assert sink.frames[0].sample_ids is None


def test_an_exception_inside_a_request_is_the_callers_own(net: Net, images: Tensor) -> None:
    sink = Kept()
    with ActivationTap(net, ["conv"], publisher=sink) as tap:
        with pytest.raises(KeyError), tap.request(sample_ids=list("abcdefgh")):
            raise KeyError
        net(images)
    assert sink.frames[0].sample_ids is None


def test_two_taps_on_two_models_keep_their_requests_apart(net: Net, images: Tensor) -> None:
    one, other = Kept(), Kept()
    twin = copy.deepcopy(net)
    first, second = ActivationTap(net, ["conv"], publisher=one), ActivationTap(twin, ["conv"], publisher=other)
    with first, second, first.request(sample_ids=list("abcdefgh")), second.request(sample_ids=list("ABCDEFGH")):
        net(images)
        twin(images)
    assert list(one.frames[0].sample_ids or ()) == list("abcdefgh")
    assert list(other.frames[0].sample_ids or ()) == list("ABCDEFGH")


def test_threads_that_share_a_model_do_not_share_captures() -> None:
    """Two threads are made to be inside the model at once; each frame must hold one thread's numbers only."""
    inside = Barrier(2, timeout=30)

    class Meeting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            inside.wait()
            return self.last(x)

    model = Meeting().eval()
    sink = Kept()

    def serve(number: int) -> None:
        for _ in range(20):
            with tap.request(sample_ids=[str(number)] * number):
                model(torch.full((number, 2), float(number)))

    with ActivationTap(model, [".*"], publisher=sink) as tap:
        threads = [Thread(target=serve, args=(number,)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert tap.stats.errors == {}
    assert sorted(len(frame) for frame in sink.frames) == [1] * 20 + [2] * 20
    for frame in sink.frames:
        assert set(frame.sample_ids or ()) == {str(len(frame))}
        assert all((layer == len(frame)).all() for layer in frame.layers.values())


# Setting up


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layers": ["conv", "con", "nothing.*"]},
            "`con` matches no layer; `nothing.*` matches no layer; the model has: conv",
        ),
        ({"layers": ["("]}, "`(` is not a regular expression"),
        ({"layers": []}, "at least one regular expression"),
        ({"layers": "conv"}, "must be a list"),
        ({"layers": ["conv"], "output": "softmax"}, "`output` must be"),
        ({"layers": ["conv"], "model": "other"}, "`model` must be the publisher's, `m`; got `other`"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_there_is(net: Net, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        ActivationTap(net, publisher=Kept(), **options)
    assert message in str(refused.value)


def test_a_sink_that_knows_no_model_is_told(net: Net, images: Tensor) -> None:
    class Anonymous:
        def __init__(self) -> None:
            self.frames: list[Frame] = []

        def publish(self, frame: Frame) -> bool:
            self.frames.append(frame)
            return True

    sink = Anonymous()
    with ActivationTap(net, ["conv"], publisher=sink, model="mine"):  # type: ignore[arg-type]
        net(images)
    assert sink.frames[0].model == "mine"


@pytest.fixture(autouse=True)
def _warnings_only(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.WARNING, "hydrophone")
    yield
    assert all(record.exc_info is None for record in caplog.records), "a traceback would keep tensors alive"
