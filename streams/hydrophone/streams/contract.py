"""What a reference needs of every frame. A frame that does not bring it would spoil its whole window."""

from collections.abc import Mapping
from dataclasses import dataclass

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.frame import Frame

__all__ = ["Contract"]


@dataclass(frozen=True, slots=True)
class Contract:
    """`sizes` are the features of each layer; with `needs_classes` a frame brings `predicted` or `output` too, with
    `output_classes` it brings `output` of that width. `is_judged`: its rows are judged one by one as they arrive."""

    sizes: Mapping[str, int]
    needs_classes: bool = False
    output_classes: int | None = None
    is_judged: bool = False

    def check(self, frame: Frame) -> None:
        """Raises `FrameInvalid`: the frame goes to `deadletter`."""
        for name, size in self.sizes.items():
            values = frame.layers.get(name)
            if values is None:
                detail = f"the reference needs it; the frame has {sorted(frame.layers)}"
                raise FrameInvalid(f"missing_tensor:layer.{name}", detail)
            if values.shape[1] != size:
                raise FrameInvalid(
                    "wrong_dimension", f"`layer.{name}` must have {size} features; got {values.shape[1]}"
                )
        if self.output_classes is not None:
            self._check_output(frame)
        if self.needs_classes and frame.predicted is None and frame.output is None:
            raise FrameInvalid(
                "missing_tensor:predicted", "the reference matches classes; got no `predicted`, no `output`"
            )

    def _check_output(self, frame: Frame) -> None:
        if frame.output is None:
            raise FrameInvalid("missing_tensor:output", "the reference looks at the answers; got no `output`")
        if frame.output.shape[1] != self.output_classes:
            raise FrameInvalid(
                "wrong_dimension", f"`output` must have {self.output_classes} classes; got {frame.output.shape[1]}"
            )
