"""From what a module returned to a small CPU tensor that nobody else can change.

All but `array` and `as_probabilities` runs in the thread that serves: keep it short. Hooks and frames live in `tap.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Pool", "Snapshot", "as_probabilities", "first_tensor", "pooled", "snapshot"]

Pool = Callable[[Tensor], Tensor]
"""From a layer's output to `[N, D]`. Must not write into what it is given."""

LENGTH_LAST: Final = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.InstanceNorm1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.LPPool1d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveAvgPool1d,
)
"""Modules whose three axes are `[N, C, L]`; all others are taken for `[N, T, D]`, tokens before features."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy on the CPU. One taken from a GPU may still be on its way: `ready` is the event that says it arrived."""

    tensor: Tensor
    ready: torch.cuda.Event | None = None

    @property
    def rows(self) -> int:
        return self.tensor.shape[0]

    def array(self) -> NDArray[Any]:
        if self.ready is not None:
            self.ready.synchronize()
        array: NDArray[Any] = self.tensor.numpy()
        return array


def first_tensor(output: object) -> Tensor:
    """The tensor itself, `logits` of a mapping that has them, else the first one found. Detached."""
    found = _find(output)
    if found is None:
        raise TypeError(f"a tensor, or a tuple, list or mapping that holds one, can be captured; got {type(output)}")
    return found.detach()


def pooled(module: nn.Module, tensor: Tensor) -> Tensor:
    """`[N, D]`: maps averaged over space, token sequences over tokens, `[N, C, L]` over length."""
    if tensor.ndim == 2:
        return tensor
    if tensor.ndim == 3:
        return _mean(tensor, (2,) if isinstance(module, LENGTH_LAST) else (1,))
    if tensor.ndim in (4, 5):
        return _mean(tensor, tuple(range(2, tensor.ndim)))
    if tensor.ndim == 1:
        return tensor.unsqueeze(1)
    raise ValueError(f"an output of 1 to 5 axes can be pooled; got {list(tensor.shape)}: give `pool=`")


def snapshot(tensor: Tensor, source: Tensor) -> Snapshot:
    """A copy of `tensor`, which was made from `source`. float16 stays float16, everything else becomes float32.

    A copy even where a cheaper view would do: the next module may be an in-place ReLU, the caller may reuse a buffer.
    """
    converted = tensor.to(torch.float16 if source.dtype == torch.float16 else torch.float32)
    if converted.is_cuda:
        return _from_gpu(converted)
    copied = converted.cpu()
    is_shared = copied.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
    return Snapshot(copied.clone() if is_shared else copied)


def as_probabilities(array: NDArray[Any], *, is_logits: bool) -> NDArray[Any]:
    """`[N, C]` float32 class probabilities. A single column is read as the second of two classes."""
    if array.shape[1] == 1:
        array = np.concatenate([np.zeros_like(array) if is_logits else 1 - array, array], axis=1)
    if not is_logits:
        return array
    logits = array.astype(np.float32)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[Any] = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities


def _find(output: object) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = [output["logits"]] if "logits" in output else list(output.values())
    if isinstance(output, (tuple, list)):
        return next((found for item in output if (found := _find(item)) is not None), None)
    return None


def _mean(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    # A mean in bfloat16 would keep 8 bits of what is published with 24.
    return tensor.mean(axes, dtype=torch.promote_types(tensor.dtype, torch.float32))


def _from_gpu(tensor: Tensor) -> Snapshot:
    """Into pinned memory and in stream order: later writes to `tensor` on its stream come after the copy."""
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("a CUDA graph is being captured: nothing can be copied to the CPU in it")
    copied = tensor.to("cpu", non_blocking=True)
    return Snapshot(copied, torch.cuda.current_stream(tensor.device).record_event())
