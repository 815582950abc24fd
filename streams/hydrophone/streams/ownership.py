"""A partition that is ours: its state, its models' memories, what waits to be told of it. Kafka lives elsewhere."""

from dataclasses import asdict, dataclass, field

from hydrophone.schemas.operations import ModelState
from hydrophone.streams.ledger import Ledger, Place
from hydrophone.streams.processor import PartitionState
from hydrophone.streams.window_tests import WindowTask

__all__ = ["OwnedPartition"]


@dataclass(slots=True)
class OwnedPartition:
    """`models` are as of the last concluded test; `reported` are the accounts as of the last commit."""

    state: PartitionState
    models: dict[str, ModelState]
    ledger: Ledger[WindowTask] = field(default_factory=Ledger)
    is_at_end: bool = False
    is_blocked: bool = False
    is_dirty: bool = False
    told_blocked: str = ""
    active_ms: int = 0
    reported: dict[str, int] = field(default_factory=dict)

    def place(self, window_ms: int) -> Place:
        """Where to go on from, were everything up to here committed now."""
        state = self.state
        return Place(state.committable, state.checkpoint(window_ms).encode(), asdict(state.accounts))
