"""A partition that is ours, of `activations` or of `partials`: its state, its models' memories, what waits to be told
of it. Kafka lives elsewhere."""

from dataclasses import dataclass, field

from hydrophone.schemas.operations import ModelState
from hydrophone.streams.arrivals import VerdictTask
from hydrophone.streams.effects import Effect
from hydrophone.streams.ledger import Ledger, Place
from hydrophone.streams.merging import MergeRules, MergeState, merge_step
from hydrophone.streams.processor import PartitionState, StreamRules, step
from hydrophone.streams.record import PartitionEnd, Record
from hydrophone.streams.snapshots import SnapshotBook, SnapshotRules, Wire
from hydrophone.streams.window_tests import WindowTask

__all__ = ["Key", "OwnedPartition", "Stages"]

Key = tuple[str, int]
"""Topic and number."""


@dataclass(frozen=True, slots=True)
class Stages:
    """What both stages go by: `windows` are of one partition, `merging` makes those of sharded models whole."""

    windows: StreamRules
    merging: MergeRules


@dataclass(slots=True)
class OwnedPartition:
    """`models` are as of the last concluded test; `reported` are the accounts as of the last commit.

    `collecting`: rows that arrived and will be judged together; their task stands in the ledger's open entry.
    A partition of `partials` knows the memories of those models alone that it has decided on since it came (`known`).
    """

    state: PartitionState | MergeState
    models: dict[str, ModelState]
    ledger: Ledger[WindowTask | VerdictTask] = field(default_factory=Ledger)
    collecting: VerdictTask | None = None
    is_at_end: bool = False
    is_blocked: bool = False
    is_dirty: bool = False
    told_blocked: str = ""
    known: set[str] = field(default_factory=set)
    active_ms: int = 0
    reported: dict[str, int] = field(default_factory=dict)
    book: SnapshotBook = field(default_factory=SnapshotBook)

    @property
    def key(self) -> Key:
        return self.state.topic, self.state.partition

    @property
    def is_merging(self) -> bool:
        return isinstance(self.state, MergeState)

    def take(self, event: Record | PartitionEnd, now_ms: int, stages: Stages) -> list[Effect]:
        """One step of whichever stage this partition is of. Time passes on `partials` by its records alone."""
        if isinstance(self.state, PartitionState):
            self.state, effects = step(self.state, event, now_ms, stages.windows)
        elif isinstance(event, Record):
            self.state, effects = merge_step(self.state, event, stages.merging)
        else:
            effects = []
        return effects

    def save(self, now_ms: int, rules: SnapshotRules) -> list[Wire]:
        """Snapshots that are due. Not while a window is under test: what waits behind it waits in memory."""
        if isinstance(self.state, MergeState) or any(isinstance(t, WindowTask) for t in self.ledger.under_way()):
            return []
        return self.book.save(self.state, now_ms, rules)

    def place(self, window_ms: int) -> Place:
        """Where to go on from, were everything up to here committed now."""
        state = self.state
        return Place(state.committable, state.checkpoint(window_ms).encode(), state.totals())
