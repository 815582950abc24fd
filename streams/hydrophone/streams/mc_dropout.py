"""How sure a model is of its answers: many passes with dropout at work, beside the model. Frames live in `tap.py`.

Gal & Ghahramani (ICML 2016): the spread of the answers under dropout is the model's uncertainty. The passes run on a
twin, which shares the model's weights and has its own hooks and flags, and draw from a generator of their own: nothing
of the model that serves changes, nor of torch's random state.
"""

import copy
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hydrophone.schemas.errors import SettingsError
from hydrophone.streams.capture import as_probabilities, first_tensor

__all__ = ["Inputs", "McDropout", "measures_of"]

ROWS_AT_ONCE: Final = 2_048
"""Rows of one pass of the twin; more passes than fit are done one group after the other."""

BACKLOG: Final = 4
"""Batches whose inputs are kept for their passes. Those that come meanwhile go without: a service must not fill its
memory with inputs."""

CHANNEL_DROPOUT: Final = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
DROPOUT: Final = (nn.Dropout, *CHANNEL_DROPOUT)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Inputs:
    """Copies of what a forward pass was given. `ready`: a copy on a GPU may still be on its way."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    ready: torch.cuda.Event | None


class McDropout:
    """Several threads may `copy`; those that `measure` take turns."""

    def __init__(
        self, module: nn.Module, *, passes: int, p: float | None, after: Sequence[nn.Module] = (), is_logits: bool
    ) -> None:
        self._twin = _twin(module)
        self._passes, self._is_logits = passes, is_logits
        self._turn = threading.Lock()
        self._generators: dict[torch.device, torch.Generator] = {}
        self._masks = 0
        self._kept: weakref.WeakSet[Inputs] = weakref.WeakSet()
        chosen = {id(layer) for layer in after}
        pairs = list(zip(module.modules(), self._twin.modules(), strict=True))
        dropped = [twin for original, twin in pairs if isinstance(twin, DROPOUT) or id(original) in chosen]
        if not dropped:
            raise SettingsError(
                "`mc_dropout` needs a layer to drop from: the model has no `nn.Dropout`; name layers whose outputs may "
                "be dropped, as `after=[...]`"
            )
        for layer in dropped:
            rate = _rate(layer, p)
            layer.register_forward_hook(lambda module, _args, output, p=rate: self._drop(module, output, p))

    def copy(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs | None:
        """What a pass was given, to be measured later; None while `BACKLOG` batches wait for that."""
        if len(self._kept) >= BACKLOG:
            return None
        devices: set[torch.device] = set()

        def copied(tensor: Tensor) -> Tensor:
            devices.add(tensor.device)
            return tensor.detach().clone()

        copied_args, copied_kwargs = _mapped((args, dict(kwargs)), copied)
        cuda = next((device for device in devices if device.type == "cuda"), None)
        ready = None if cuda is None else torch.cuda.current_stream(cuda).record_event()
        inputs = Inputs(copied_args, copied_kwargs, ready)
        self._kept.add(inputs)
        return inputs

    def measure(self, inputs: Inputs, rows: int) -> dict[str, NDArray[np.float32]]:
        """The four numbers of every row. Tensors with one entry per row on their first axis are the rows' inputs.

        Raises `ValueError` where the model does not answer with a row for each row, or no dropout was at work.
        """
        if inputs.ready is not None:
            inputs.ready.synchronize()
        with self._turn, torch.no_grad():
            return measures_of(np.concatenate([self._group(inputs, rows, times) for times in self._groups(rows)]))

    def _groups(self, rows: int) -> Iterator[int]:
        at_once = max(1, ROWS_AT_ONCE // rows)
        for start in range(0, self._passes, at_once):
            yield min(at_once, self._passes - start)

    def _group(self, inputs: Inputs, rows: int, times: int) -> NDArray[np.float64]:
        """The answers of some passes at once, `[times, rows, classes]`."""
        args, kwargs = _mapped((inputs.args, inputs.kwargs), lambda tensor: _repeated(tensor, rows, times))
        self._masks = 0
        answer = first_tensor(self._twin(*args, **kwargs))
        if not self._masks:
            raise ValueError("no dropout ran in the pass: the model bypasses its dropout modules in eval() mode")
        if answer.shape[:1] != (times * rows,) or answer.ndim > 2:
            raise ValueError(f"{times} x {rows} rows must give as many answers [N, C]; got {list(answer.shape)}")
        table = (answer if answer.ndim == 2 else answer.unsqueeze(1)).to(torch.float32).cpu().numpy()
        return as_probabilities(table, is_logits=self._is_logits).astype(np.float64).reshape(times, rows, -1)

    def _drop(self, module: nn.Module, output: Any, p: float) -> Tensor:
        tensor = first_tensor(output)
        is_by_channel = isinstance(module, CHANNEL_DROPOUT) and tensor.ndim > 2
        shape = (*tensor.shape[:2], *[1] * (tensor.ndim - 2)) if is_by_channel else tensor.shape
        drawn = torch.rand(shape, generator=self._generator(tensor.device), device=tensor.device)
        self._masks += 1
        return tensor * ((drawn >= p).to(tensor.dtype) / (1 - p))

    def _generator(self, device: torch.device) -> torch.Generator:
        """Seeded by the system: who knew the masks could look for inputs that are sure under them."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
            self._generators[device].seed()
        return self._generators[device]


def measures_of(probabilities: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
    """From class probabilities `[passes, rows, classes]`. 0 <= mutual information <= entropy <= ln(classes).

    arXiv 2012.06390 sections 3.1.1 to 3.1.4, but for the sign of its equation 8, by which mutual information would
    exceed entropy; here it is the entropy of the mean less the mean entropy.
    """
    mean = probabilities.mean(axis=0)
    entropy = np.clip(_entropy(mean), 0.0, np.log(mean.shape[1]))
    information = np.clip(entropy - _entropy(probabilities).mean(axis=0), 0.0, entropy)
    measures = {
        "variance": probabilities.var(axis=0).mean(axis=1),
        "entropy": entropy,
        "mutual_information": information,
        "confidence": mean.max(axis=1),
    }
    return {name: values.astype(np.float32) for name, values in measures.items()}


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    entropy: NDArray[np.float64] = -(probabilities * logs).sum(axis=-1)
    return entropy


def _twin(module: nn.Module) -> nn.Module:
    """The same layers on the same weights, in eval() mode, without anybody's hooks."""
    module = getattr(module, "_orig_mod", module)  # what torch.compile was given
    memo: dict[int, Any] = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
    try:
        twin = copy.deepcopy(module, memo)
    except Exception as error:  # what a module holds decides what copying it raises
        raise SettingsError(
            f"`mc_dropout` needs a model that can be copied (its weights are shared): {type(error).__name__}: {error}"
        ) from error
    for original, layer in zip(module.modules(), twin.modules(), strict=True):
        # The dicts themselves: weights that are moved or replaced later are the twin's too.
        layer._parameters, layer._buffers = original._parameters, original._buffers  # noqa: SLF001
        for hooks in (layer._forward_hooks, layer._forward_pre_hooks):  # noqa: SLF001
            for key in [key for key, hook in hooks.items() if not _makes_weights(hook)]:
                del hooks[key]
    return twin.eval()


def _makes_weights(hook: object) -> bool:
    """Weight and spectral normalisation work by hooks of torch's own."""
    return type(hook).__module__.startswith("torch.nn.utils")


def _rate(layer: nn.Module, p: float | None) -> float:
    rate = getattr(layer, "p", None) if p is None else p
    if not isinstance(rate, float | int) or not 0 < rate < 1:
        raise SettingsError(f"`p` must lie between 0 and 1; got {rate!r} of {type(layer).__name__}")
    return float(rate)


def _repeated(tensor: Tensor, rows: int, times: int) -> Tensor:
    if tensor.ndim == 0 or tensor.shape[0] != rows:
        return tensor
    return tensor.repeat(times, *[1] * (tensor.ndim - 1))


def _mapped(value: Any, act: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in it replaced, through tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return act(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, act) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_mapped(item, act) for item in value)
    return value
