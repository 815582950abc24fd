"""Listens to the layers of a PyTorch model while it serves, and hands each batch on as one frame.

How an output becomes a small tensor is in `capture.py`, how sure the model is of it in `mc_dropout.py`; where frames
go is in `publisher.py` and `frame_writer.py`.
"""

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from hydrophone.schemas.errors import SettingsError
from hydrophone.schemas.frame import Frame
from hydrophone.streams.capture import Pool, Snapshot, as_probabilities, first_tensor, pooled, snapshot
from hydrophone.streams.clock import now_ms
from hydrophone.streams.frame_sink import FrameSink, LazyFrameSink, require_model
from hydrophone.streams.mc_dropout import Inputs, McDropout

__all__ = ["ActivationTap", "TapStats"]

Output = Literal["logits", "probabilities"]

LOGGER: Final = logging.getLogger("hydrophone")


@dataclass(frozen=True, slots=True)
class TapStats:
    """What became of the forward passes, in batches. `errors` counts by kind.

    `without_uncertainty`: went without the measures of `mc_dropout`, because others were still waiting for theirs.
    """

    published: int
    dropped: int
    skipped_training: int
    ids_dropped: int
    incomplete: int
    without_uncertainty: int
    errors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Ids:
    samples: tuple[str, ...] | None
    clients: tuple[str | None, ...] | None

    def fit(self, rows: int) -> bool:
        return all(ids is None or len(ids) == rows for ids in (self.samples, self.clients))


@dataclass(frozen=True, slots=True)
class _Batch:
    """One forward pass; made in the caller's thread, turned into a frame in the sink's."""

    model: str
    event_time_ms: int
    layers: Mapping[str, Snapshot]
    output: Snapshot | None
    is_logits: bool
    ids: _Ids
    uncertainty: Callable[[], Mapping[str, Any] | None] | None = None

    def frame(self) -> Frame:
        output = None if self.output is None else as_probabilities(self.output.array(), is_logits=self.is_logits)
        return Frame(
            self.model,
            {name: layer.array() for name, layer in self.layers.items()},
            event_time_ms=np.array(self.event_time_ms),
            sample_ids=self.ids.samples,
            client_ids=self.ids.clients,
            output=output,
            predicted=None if output is None else output.argmax(axis=1).astype(np.int64),
            uncertainty=None if self.uncertainty is None else self.uncertainty(),
        )


class ActivationTap:
    """Publishes what some layers of `module` return, for every forward pass in `eval()` mode. Changes nothing.

    `layers` are regular expressions that must match the whole dotted name of a sub-module. `output` says what the
    module itself returns, so that the frame can carry class probabilities and the predicted class; None: it does not.
    `pool` turns a layer's output into `[N, D]` where the default (see `capture.pooled`) does not fit: outputs laid out
    `[N, H, W, C]` or `[T, N, D]`, or `[N, C, L]` from something that is not a 1-d convolution, norm or pool.

    No exception leaves the hooks: `stats` counts it and the log names the first of its kind. Several threads may use
    the module at once. A layer that runs several times in one pass is captured the last time. Not seen: passes that
    bypass the module's `__call__`, layers inside a `torch.compile`d region, and replicas of `DataParallel`.
    `nn.TransformerEncoderLayer` leaves its fused path, as with any hook, so its result may differ in the last bit.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        *,
        publisher: FrameSink,
        output: Output | None = None,
        model: str | None = None,
        pool: Pool | None = None,
    ) -> None:
        if output is not None and output not in get_args(Output):
            raise SettingsError(f"`output` must be `logits`, `probabilities` or None; got {output!r}")
        self._module = module
        self._layers = _matching(module, layers)
        self._model = require_model(publisher.model if model is None else model)
        if getattr(publisher, "model", self._model) != self._model:
            raise SettingsError(f"`model` must be the publisher's, `{publisher.model}`; got `{model}`: leave it out")
        self._output = output
        self._pool = pool
        self._offer = publisher.offer if isinstance(publisher, LazyFrameSink) else partial(_publish_built, publisher)
        self._handles: list[RemovableHandle] = []
        self._dropout: McDropout | None = None
        self._pass = threading.local()
        # One variable per tap, so that requests to two models can nest; a process has few taps.
        self._ids: ContextVar[_Ids] = ContextVar("hydrophone_request")
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._counting = threading.Lock()

    @property
    def stats(self) -> TapStats:
        with self._counting:
            counts = {name: self._counts[name] for name in TapStats.__slots__ if name != "errors"}
            return TapStats(**counts, errors=dict(self._errors))

    def mc_dropout(self, passes: int = 50, p: float | None = 0.5, *, after: Sequence[str] = ()) -> Self:
        """Put `uncertainty.*` into every frame: variance, entropy, mutual information and confidence of the mean over
        `passes` passes with dropout at rate `p` (None: the model's own rates).

        They run beside the model, where frames are built (with a `Publisher` its own thread), in one batch of
        rows x passes and on the model's device: its answers, its flags and torch's random state stay as they are.
        `after`: layers whose outputs are dropped from besides those of dropout modules, as regular expressions; a
        dropout that is a function call in `forward` is not seen. While a few batches wait for their passes, frames go
        without and are counted. A model that is random in `eval()` mode draws more.
        """
        if self._output is None:
            raise SettingsError("`mc_dropout` looks at the model's answers: say `output`, logits or probabilities")
        if passes < 2:
            raise SettingsError(f"`passes` must be at least 2; got {passes}")
        layers = list(_matching(self._module, after).values()) if after else []
        self._dropout = McDropout(self._module, passes=passes, p=p, after=layers, is_logits=self._output == "logits")
        return self

    def attach(self) -> Self:
        """Attaching twice changes nothing."""
        if not self._handles:
            begin = _Hook(self._begin, self._failed)
            self._handles = [self._module.register_forward_pre_hook(begin, with_kwargs=True)]
            for name, layer in self._layers.items():
                hook = _Hook(partial(self._capture, name), self._failed)
                self._handles.append(layer.register_forward_hook(hook))
            self._handles.append(self._module.register_forward_hook(_Hook(self._finish, self._failed)))
        return self

    def remove(self) -> None:
        """Take every hook off; the publisher stays open."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @contextmanager
    def request(
        self, *, sample_ids: Iterable[object] | None = None, client_ids: Iterable[object | None] | None = None
    ) -> Iterator[None]:
        """Name the rows of the forward pass inside; one id per row, or all are dropped and counted.

        Follows the context, not the thread: `asyncio.to_thread` carries it along, a bare executor does not.
        """
        token = self._ids.set(self._texts(sample_ids, client_ids))
        try:
            yield
        finally:
            with suppress(ValueError):  # left in another context than it was entered in
                self._ids.reset(token)

    def _texts(self, samples: Iterable[object] | None, clients: Iterable[object | None] | None) -> _Ids:
        try:
            return _Ids(
                None if samples is None else tuple(map(str, samples)),
                None if clients is None else tuple(None if client is None else str(client) for client in clients),
            )
        except Exception as error:  # noqa: BLE001 - ids are a courtesy, the forward pass is not
            self._failed(error)
            return NO_IDS

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        # Always anew: a pass that raised halfway leaves its captures behind.
        self._pass.inputs = None
        self._pass.layers = None if module.training else {}
        if self._dropout is not None and not module.training:  # before the model writes into what it was given
            self._pass.inputs = self._dropout.copy(args, kwargs)
        if module.training and self._count("skipped_training") == 1:
            LOGGER.warning("the tap skips batches in training mode: call .eval() on the model that serves")

    def _capture(self, name: str, module: nn.Module, _args: object, output: object) -> None:
        layers: dict[str, Snapshot] | None = getattr(self._pass, "layers", None)
        if layers is None:
            return  # the layer was called by itself, or in training
        source = first_tensor(output)
        layers[name] = snapshot(pooled(module, source) if self._pool is None else self._pool(source).detach(), source)

    def _finish(self, _module: nn.Module, _args: object, output: object) -> None:
        layers: dict[str, Snapshot] | None = getattr(self._pass, "layers", None)
        inputs: Inputs | None = getattr(self._pass, "inputs", None)
        self._pass.layers = self._pass.inputs = None
        if layers is None:
            return
        if len(layers) < len(self._layers) and self._count("incomplete") == 1:
            absent = sorted(self._layers.keys() - layers.keys())
            LOGGER.warning("layers that were not captured in a forward pass are absent from its frame: %s", absent)
        if layers:
            self._hand_over(layers, output, inputs)

    def _hand_over(self, layers: dict[str, Snapshot], output: object, inputs: Inputs | None) -> None:
        probabilities = None if self._output is None else self._output_snapshot(output)
        rows = _common_rows(layers, probabilities)
        if rows == 0:
            return
        uncertainty = self._uncertainty(inputs, rows)
        is_logits = self._output == "logits"
        batch = _Batch(self._model, now_ms(), layers, probabilities, is_logits, self._ids_of(rows), uncertainty)
        self._count("published" if self._offer(rows, batch.frame) else "dropped")

    def _uncertainty(self, inputs: Inputs | None, rows: int) -> Callable[[], Mapping[str, Any] | None] | None:
        """What to ask for a frame's measures when it is built; a failure costs the measures, not the frame."""
        dropout = self._dropout
        if dropout is None:
            return None
        if inputs is None:
            if self._count("without_uncertainty") == 1:
                LOGGER.warning("passes with dropout do not keep pace: some frames go without `uncertainty.*`")
            return None

        def measured() -> Mapping[str, Any] | None:
            try:
                return dropout.measure(inputs, rows)
            except Exception as error:  # noqa: BLE001 - the frame is good without
                self._failed(error)
                return None

        return measured

    def _output_snapshot(self, output: object) -> Snapshot | None:
        source = first_tensor(output)
        if source.ndim > 2:  # one class per row is meant; the logits of a whole text would be copied for nothing
            raise ValueError(f"with `output` the model must return [N, C]; got {list(source.shape)}: use `output=None`")
        return snapshot(source if source.ndim == 2 else source.unsqueeze(1), source)

    def _ids_of(self, rows: int) -> _Ids:
        ids = self._ids.get(NO_IDS)
        if ids.fit(rows):
            return ids
        if self._count("ids_dropped") == 1:
            LOGGER.warning("`request` must name one id per row, %d; ids that do not fit are dropped", rows)
        return NO_IDS

    def _count(self, name: str) -> int:
        with self._counting:
            self._counts[name] += 1
            return self._counts[name]

    def _failed(self, error: Exception) -> None:
        kind = type(error).__name__
        with self._counting:
            self._errors[kind] += 1
            is_first = self._errors[kind] == 1
        if is_first:
            LOGGER.warning("the tap could not capture a batch: %s: %.500s (said once)", kind, error)


class _Hook:
    """What torch keeps on a module. In a copied or pickled model it is inert: a copy does not publish."""

    def __init__(
        self, act: Callable[..., None] | None = None, failed: Callable[[Exception], None] | None = None
    ) -> None:
        self._act = act
        self._failed = failed

    def __call__(self, *args: Any) -> None:
        if self._act is None or self._failed is None or torch.compiler.is_compiling():
            return
        try:
            self._act(*args)
        except Exception as error:  # noqa: BLE001 - the forward pass is the caller's and must not notice
            self._failed(error)

    def __reduce__(self) -> tuple[type["_Hook"], tuple[()]]:
        return _Hook, ()


NO_IDS: Final = _Ids(None, None)


def _matching(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Sub-modules whose name matches a pattern, in the module's order. All faults are reported together."""
    named = {name: layer for name, layer in module.named_modules() if name}
    chosen: set[str] = set()
    faults: list[str] = []
    for pattern in patterns:
        try:
            matched = {name for name in named if re.fullmatch(pattern, name)}
        except re.error as error:
            faults.append(f"`{pattern}` is not a regular expression: {error}")
            continue
        if not matched:
            faults.append(f"`{pattern}` matches no layer")
        chosen |= matched
    if isinstance(patterns, str) or not patterns:
        faults = [f"`layers` must be a list of at least one regular expression; got {patterns!r}"]
    if faults:
        raise SettingsError(f"{'; '.join(faults)}; the model has: {', '.join(named) or 'no sub-modules'}")
    return {name: layer for name, layer in named.items() if name in chosen}


def _common_rows(layers: Mapping[str, Snapshot], output: Snapshot | None) -> int:
    rows = {name: layer.rows for name, layer in layers.items()} | ({} if output is None else {"output": output.rows})
    if len(set(rows.values())) != 1:
        raise ValueError(f"every layer must return one row per sample; got {rows}")
    return next(iter(rows.values()))


def _publish_built(sink: FrameSink, _rows: int, build: Callable[[], Frame]) -> bool:
    return sink.publish(build())
