"""What listening costs the model that serves: forward passes with tap and publisher against the same without.

Both sides run in turn in one process on the same weights. The publisher sends to a broker inside this process, so its
thread and the broker's compete for the same cores: a real service is no worse off. Run with `python -m benchmarks.tap`.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from benchmarks.harness import Measured, interleaved, median_range, run
from torch import Tensor, nn
from torchvision.models import resnet18

from hydrophone.streams.frame_sink import SinkStats
from hydrophone.streams.kafka.embedded import EmbeddedBroker
from hydrophone.streams.publisher import Publisher
from hydrophone.streams.tap import ActivationTap

THREADS: Final = 2
BATCH: Final = 64
IMAGE: Final = 64
TINY_CALLS: Final = 50
"""Tiny forward passes timed together, back to back, so that the publisher's turns fall inside what is timed."""


class Comparison:
    """The same forward pass on two copies of a model, one of them tapped."""

    def __init__(self, build: Callable[[], nn.Module], layers: Sequence[str], batch: Tensor) -> None:
        self._plain, self._tapped = _seeded(build), _seeded(build)
        self._layers = layers
        self._batch = batch

    def seconds(self, *, rounds: int, calls: int) -> tuple[list[float], list[float], SinkStats]:
        """With the tap, without it, and what the publisher did with the rows meanwhile."""
        with self._sides() as (sides, publisher), torch.inference_mode():
            times = interleaved(sides, rounds=rounds, calls=calls)
        return times["tapped"], times["plain"], publisher.stats

    @contextmanager
    def _sides(self) -> Iterator[tuple[dict[str, Callable[[], object]], Publisher]]:
        with (
            EmbeddedBroker() as broker,
            Publisher(broker.bootstrap, model="bench") as publisher,
            ActivationTap(self._tapped, layers=self._layers, publisher=publisher, output="logits") as tap,
        ):
            ids = [f"request-{row}" for row in range(len(self._batch))]

            def tapped() -> Tensor:
                with tap.request(sample_ids=ids):
                    output: Tensor = self._tapped(self._batch)
                return output

            yield {"plain": lambda: self._plain(self._batch), "tapped": tapped}, publisher


def resnet_overhead(*, is_quick: bool) -> Measured:
    batch = torch.randn(4 if is_quick else BATCH, 3, IMAGE, IMAGE)
    comparison = Comparison(lambda: resnet18(weights=None), [r"layer[1-4]", "avgpool"], batch)
    tapped, plain, stats = comparison.seconds(rounds=3 if is_quick else 150, calls=1)
    # Round by round, so that what slows both sides of a round cancels.
    share, low, high = median_range([one / other - 1 for one, other in zip(tapped, plain, strict=True)])
    return Measured(
        "resnet-overhead",
        share,
        f"median of {len(plain)} pairs, quartiles {low:.1%} to {high:.1%}; forward pass "
        f"{median_range(plain)[0] * 1e3:.1f} ms; 5 layers, {IMAGE}x{IMAGE} pixels, {THREADS} threads; {_sent(stats)}",
    )


def tiny_model_overhead(*, is_quick: bool) -> Measured:
    comparison = Comparison(_tiny, ["0", "1", "2"], torch.randn(32, 64))
    tapped, plain, stats = comparison.seconds(rounds=4 if is_quick else 200, calls=TINY_CALLS)
    extra, low, high = median_range([(one - other) * 1e6 for one, other in zip(tapped, plain, strict=True)])
    return Measured(
        "tiny-model-overhead",
        extra,
        f"median of {len(plain)} pairs of {TINY_CALLS} passes, quartiles {low:.0f} to {high:.0f} us; forward pass "
        f"{median_range(plain)[0] * 1e6:.0f} us; 3 layers, 32 rows, {THREADS} threads; {_sent(stats)}",
    )


def _tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(inplace=True), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval()


def _sent(stats: SinkStats) -> str:
    return f"{stats.published} rows taken, {stats.dropped} refused, {stats.failed} lost"


def measure(is_quick: bool) -> Iterator[Measured]:
    torch.set_num_threads(THREADS)
    yield resnet_overhead(is_quick=is_quick)
    yield tiny_model_overhead(is_quick=is_quick)


if __name__ == "__main__":
    sys.exit(run("tap", measure, packages=("torchvision",)))
