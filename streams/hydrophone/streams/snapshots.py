"""Open windows as records of the compacted topic `snapshots`, and back, so that a restart need not read them again.

A window is several records, on its partition's own number; keys are JSON:

    ["resnet-eu",1700000000000,"head"]      what it counted, up to which offset, and how many of the others there are
    ["resnet-eu",1700000000000,"ids",0]     frame ids it has counted, 16 bytes each; more come in records behind
    ["resnet-eu",1700000000000,"rows",0]    its sampled rows with their origins, frame files; anew when they changed

Pure. That they are committed with the offset that counts on them is the runtime's business, and the whole trick
(docs/decisions/0022-long-windows-are-kept-in-snapshots.md).
"""

import json
import logging
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from pydantic import ValidationError

from hydrophone.schemas.errors import FrameInvalid
from hydrophone.schemas.event import WindowBounds
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.identity import origin_priorities
from hydrophone.schemas.snapshots import ContractSnapshot, WindowSnapshot
from hydrophone.streams.batching import split
from hydrophone.streams.checkpoint import Checkpoint
from hydrophone.streams.contract import Contract
from hydrophone.streams.processor import PartitionState
from hydrophone.streams.sampling import BottomK
from hydrophone.streams.topics import RECORD_BYTES
from hydrophone.streams.windows import OpenWindow, snapshot_digest

__all__ = ["SnapshotBook", "SnapshotRules", "TakenUp", "Wire", "taken_up"]

log = logging.getLogger("hydrophone")

ROUND_BYTES: Final = 8 * 1024 * 1024
"""Of one partition's snapshots at once; what is left of a round goes with the next transactions."""

PIECE_BYTES: Final = RECORD_BYTES
IDS_IN_RECORD: Final = 32_768
ID_BYTES: Final = 16

HEAD, IDS, ROWS = "head", "ids", "rows"

WindowKey = tuple[int, str]
"""Start and model."""


class Wire(NamedTuple):
    """One record. Without a value it takes back what stood under its key."""

    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class SnapshotRules:
    """How often (`every_ms`, 0: never), and what a sample must have been drawn with to be gone on with."""

    every_ms: int
    k: int
    sampling_key: bytes
    sampling_key_id: str


@dataclass(frozen=True, slots=True)
class Written:
    """What stands on the topic of one window. `frames` in the first `id_records` are of use, `rows_version` says as of
    which state of the sample the rows are; the other two count the keys that have to be taken back one day."""

    frames: int = 0
    id_records: int = 0
    rows_version: int = -1
    id_keys: int = 0
    row_keys: int = 0

    def spoilt(self) -> "Written":
        """Nothing of it is of use."""
        return Written(id_keys=self.id_keys, row_keys=self.row_keys)


def snapshot(
    window: OpenWindow, covered_until: int, before: Written, rules: SnapshotRules
) -> tuple[list[Wire], Written] | None:
    """What to write, and what then stands there. None where a row fits into no record: the window is read again."""
    place = (window.start_ms, window.model)
    try:
        rows = _rows(window.sample, before, place)
    except FrameInvalid:
        return None
    if rows is None:
        return None
    pieces, row_records = rows
    fresh = list(islice(window.frame_ids, before.frames, None))
    ids = [_packed(fresh[i : i + IDS_IN_RECORD]) for i in range(0, len(fresh), IDS_IN_RECORD)]
    id_records = before.id_records + len(ids)
    head = WindowSnapshot(
        model=window.model,
        window=WindowBounds(start_ms=window.start_ms, end_ms=window.end_ms),
        first_offset=window.first_offset,
        covered_until=covered_until,
        k=rules.k,
        sampling_key_id=rules.sampling_key_id,
        contract=_contract_said(window.contract),
        seen=window.seen,
        rejected=window.rejected,
        duplicate=window.duplicate,
        ignored_tensors=window.ignored_tensors,
        traceparents=tuple(window.traceparents),
        frames=len(window.frame_ids),
        id_records=id_records,
        rows=len(window.sample),
        row_records=row_records,
    )
    wires = [Wire(_key(place, IDS, before.id_records + i), data) for i, data in enumerate(ids)]
    wires += [Wire(_key(place, IDS, n), None) for n in range(id_records, before.id_keys)]
    wires += pieces
    wires += [Wire(_key(place, ROWS, n), None) for n in range(row_records, before.row_keys)]
    wires.append(Wire(_key(place, HEAD), head.model_dump_json().encode()))
    return wires, Written(head.frames, id_records, window.sample.version, id_records, row_records)


def _rows(sample: BottomK, before: Written, place: WindowKey) -> tuple[list[Wire], int] | None:
    """The records of rows to write, none where they stand there already, and how many there are then."""
    if sample.version == before.rows_version:
        return [], before.row_keys
    data = [piece.data for frame in sample.parts() for piece in split(frame, PIECE_BYTES)]
    wires = [Wire(_key(place, ROWS, number), part) for number, part in enumerate(data) if part is not None]
    return (wires, len(wires)) if len(wires) == len(data) else None


def taken_back(place: WindowKey, written: Written) -> list[Wire]:
    """Tombstones for everything of a window."""
    keys = [_key(place, IDS, n) for n in range(written.id_keys)] + [
        _key(place, ROWS, n) for n in range(written.row_keys)
    ]
    return [Wire(key, None) for key in (*keys, _key(place, HEAD))]


def _key(place: WindowKey, kind: str, *number: int) -> bytes:
    start_ms, model = place
    return json.dumps([model, start_ms, kind, *number], separators=(",", ":")).encode()


def _packed(frame_ids: list[str]) -> bytes:
    return bytes.fromhex("".join(frame_ids).replace("-", ""))


def _unpacked(data: bytes) -> Iterator[str]:
    if len(data) % ID_BYTES:
        raise ValueError(f"frame ids take {ID_BYTES} bytes each; got {len(data)} bytes")
    for begin in range(0, len(data), ID_BYTES):
        yield str(uuid.UUID(bytes=data[begin : begin + ID_BYTES]))


def _contract_said(contract: Contract | None) -> ContractSnapshot | None:
    if contract is None:
        return None
    return ContractSnapshot(
        sizes=dict(contract.sizes), needs_classes=contract.needs_classes, output_classes=contract.output_classes
    )


@dataclass(slots=True)
class Restored:
    """The windows of a topic's partition, and what stands there of each. `faults`: what is wrong with others."""

    windows: dict[WindowKey, OpenWindow] = field(default_factory=dict)
    written: dict[WindowKey, Written] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


Parts = dict[str, dict[int, bytes]]


def restore(
    table: Mapping[bytes, bytes], rules: SnapshotRules, contract: Callable[[str, int], Contract | None]
) -> Restored:
    """Every window that can be gone on with as if it had never been left. Which are meant, the checkpoint says."""
    found = Restored()
    for place, parts in _by_window(table).items():
        keys = Written(id_keys=_keys(parts, IDS), row_keys=_keys(parts, ROWS))
        try:
            window = _window(parts, rules, contract)
        except (FrameInvalid, ValidationError, ValueError) as error:
            found.faults.append(f"`{place[1]}` at {place[0]} ms UTC: {error}")
            found.written[place] = keys
            continue
        found.windows[place] = window
        id_records = len(parts[IDS])
        found.written[place] = Written(
            len(window.frame_ids), id_records, window.sample.version, keys.id_keys, keys.row_keys
        )
    return found


def _by_window(table: Mapping[bytes, bytes]) -> dict[WindowKey, Parts]:
    """Keys of another make are left alone."""
    found: dict[WindowKey, Parts] = defaultdict(lambda: {HEAD: {}, IDS: {}, ROWS: {}})
    for key, value in table.items():
        try:
            model, start_ms, kind, *number = json.loads(key)
            found[int(start_ms), str(model)][kind][int(number[0]) if number else 0] = value
        except (KeyError, RecursionError, TypeError, ValueError):
            continue
    return dict(found)


def _keys(parts: Parts, kind: str) -> int:
    return max(parts[kind], default=-1) + 1


def _window(parts: Parts, rules: SnapshotRules, contract: Callable[[str, int], Contract | None]) -> OpenWindow:
    """Raises `ValueError`, or what reading a record raises."""
    if not parts[HEAD]:
        raise ValueError("its head is missing")
    head = WindowSnapshot.model_validate_json(parts[HEAD][0])
    _check_sampling(head, rules)
    now = contract(head.model, head.window.start_ms)
    if _contract_said(now) != head.contract:
        raise ValueError("its reference asks for other layers now")
    window = OpenWindow(head.model, head.window.start_ms, head.window.end_ms, head.first_offset, now, BottomK(rules.k))
    _fill(window, head, parts, rules)
    window.covered_until = head.covered_until
    window.seen, window.rejected, window.duplicate = head.seen, head.rejected, head.duplicate
    window.ignored_tensors = head.ignored_tensors
    window.traceparents = list(head.traceparents)
    return window


def _check_sampling(head: WindowSnapshot, rules: SnapshotRules) -> None:
    if head.sampling_key_id != rules.sampling_key_id:
        raise ValueError("its rows were sampled with another key")
    if head.rows >= head.k and head.k < rules.k:
        raise ValueError(f"it kept {head.k} rows and now {rules.k} are wanted")


def _fill(window: OpenWindow, head: WindowSnapshot, parts: Parts, rules: SnapshotRules) -> None:
    """Frame ids and rows, all of them or an error."""
    for number in range(head.id_records):
        window.frame_ids |= dict.fromkeys(_unpacked(_part(parts, IDS, number)))
    rows = 0
    for number in range(head.row_records):
        frame = Frame.decode(_part(parts, ROWS, number))
        if frame.model != head.model or frame.origins is None:
            raise ValueError("rows of another model, or without origins")
        window.sample.add(frame, origin_priorities(frame.row_origins(), rules.sampling_key))
        rows += len(frame)
    if (len(window.frame_ids), rows) != (head.frames, head.rows):
        raise ValueError(f"{head.frames} frames and {head.rows} rows were kept; got {len(window.frame_ids)} and {rows}")


def _part(parts: Parts, kind: str, number: int) -> bytes:
    try:
        return parts[kind][number]
    except KeyError:
        raise ValueError(f"record {number} of its {kind} is missing") from None


class TakenUp(NamedTuple):
    """Where to read on, with which windows. `lost`: why the snapshots that were counted on cannot be used."""

    offset: int
    windows: dict[WindowKey, OpenWindow]
    written: dict[WindowKey, Written]
    lost: str = ""


def taken_up(
    checkpoint: Checkpoint | None,
    offset: int,
    read_table: Callable[[], Mapping[bytes, bytes]],
    rules: SnapshotRules,
    contract: Callable[[str, int], Contract | None],
) -> TakenUp:
    """What a committed offset and its checkpoint say of snapshots: all that they count on, or none."""
    counted_on = None if checkpoint is None else checkpoint.snapshots
    if counted_on is None and not rules.every_ms:
        return TakenUp(offset, {}, {})
    found = restore(read_table(), rules, contract)
    if checkpoint is None or counted_on is None:
        return TakenUp(offset, {}, {place: written.spoilt() for place, written in found.written.items()})
    frontier = checkpoint.watermark_ms
    windows = {place: w for place, w in found.windows.items() if frontier is None or w.end_ms > frontier}
    if (len(windows), snapshot_digest(windows.values())) == (counted_on.windows, counted_on.digest):
        spoilt = {place: written.spoilt() for place, written in found.written.items() if place not in windows}
        return TakenUp(offset, windows, found.written | spoilt)
    why = "; ".join(found.faults[:3]) or f"{counted_on.windows} windows were kept; found {len(windows)}, or others"
    spoilt = {place: written.spoilt() for place, written in found.written.items()}
    return TakenUp(counted_on.replay_from, {}, spoilt, why)


@dataclass(slots=True)
class SnapshotBook:
    """What of one partition stands on the topic, and whose turn it is.

    A round takes every window that has fallen behind, the one furthest behind first, over as many transactions as its
    bytes need.
    """

    written: dict[WindowKey, Written] = field(default_factory=dict)
    round_ms: int = 0
    waiting: deque[WindowKey] = field(default_factory=deque)

    def save(self, state: PartitionState, now_ms: int, rules: SnapshotRules, room: int = ROUND_BYTES) -> list[Wire]:
        """What to write with the next commit, little more than `room` bytes. From now on the state counts on it."""
        wires: list[Wire] = []
        if not self.waiting:
            if not rules.every_ms or now_ms - self.round_ms < rules.every_ms:
                return []
            self.round_ms = now_ms
            behind = [key for key, window in state.windows.items() if window.resume_offset < state.position]
            self.waiting.extend(sorted(behind, key=lambda key: state.windows[key].resume_offset))
            for place in self.written.keys() - state.windows.keys():
                wires += self.forget(place)
        size = 0
        while self.waiting and size < room:
            made = self._next(state, self.waiting.popleft(), rules)
            size += sum(len(wire.value or b"") for wire in made)
            wires += made
        return wires

    def _next(self, state: PartitionState, place: WindowKey, rules: SnapshotRules) -> list[Wire]:
        window = state.windows.get(place)
        if window is None or window.resume_offset >= state.position:  # it closed, or a replay has yet to come to it
            return []
        made = snapshot(window, state.position, self.written.get(place, Written()), rules)
        if made is None:
            log.warning(
                "a row is too large for a snapshot: after a restart its window is read again", extra={"model": place[1]}
            )
            return []
        wires, self.written[place] = made
        window.covered_until = state.position
        return wires

    def forget(self, place: WindowKey) -> list[Wire]:
        """The window has closed: what stands there of it goes, with its score."""
        written = self.written.pop(place, None)
        return [] if written is None else taken_back(place, written)
