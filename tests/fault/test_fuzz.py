"""No record, whatever its bytes, stops the processor, makes it allocate without bound, or goes unaccounted.

Valid frames are mutated by a seeded generator: bits flipped, cut off, repeated inside, headers that claim huge or
negative shapes, unknown schema versions, wrong dtypes, zero rows. Each is one dead letter with its place and a reason,
or, where the mutation left a valid frame, a record like any other.
"""

import json
import random
import resource
from collections import Counter
from pathlib import Path

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.broker import read_all
from tests.support.frames import raw_frame
from tests.support.processor import await_until, frame_at
from tests.support.stage import Stage
from tests.support.thorough import THOROUGH

from hydrophone.streams.topics import DEADLETTER

pytestmark = pytest.mark.broker

SEED = 9
RECORDS = 5_000 if THOROUGH else 400
MIB = 1 << 20
BOUND_KIB = 300 * 1024
"""Growth of the process over all of it; one header that is believed would take a thousand times as much."""


def test_mutated_frames_are_accounted_for_one_by_one(broker: KraftBroker, topic_prefix: str, tmp_path: Path) -> None:
    #   good good ✗ good ✗ ✗ good ...
    stage = Stage.of(broker.bootstrap, topic_prefix, tmp_path, ["one"])
    chance = random.Random(SEED)
    with stage.in_process() as processor:
        stage.send_windows(range(2))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(RECORDS // 100):
            good = stage.frames(2 + number)
            bad = [("one", _mutated(good[0].encode(), chance)) for _ in range(100)]
            stage.send(*good, *(("one", value) for value in _claims()), *bad)
        stage.close_windows()
        stage.await_scores()
        await_until(
            lambda: len(read_all(broker.bootstrap, DEADLETTER.full_name(topic_prefix))) >= RECORDS // 2, "dead letters"
        )
        processor.drain()

    found = stage.assert_every_window_once(windows=2 + RECORDS // 100)
    reasons = Counter(found.batch.dead.values())
    assert len(found.batch.dead) > RECORDS * 0.5
    assert len(reasons) >= 5, reasons
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < BOUND_KIB


def _mutated(frame: bytes, chance: random.Random) -> bytes:
    changed = bytearray(frame)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                del changed[place:]
                changed = changed or bytearray(b"\0")
            case 2:
                changed[place:place] = changed[: chance.randrange(64)]
            case _:
                early = chance.randrange(min(len(changed), 300))
                changed[early] = chance.randrange(256)
    return bytes(changed)


def _claims() -> list[bytes]:
    """Headers that promise more than the record holds, or what no version of ours knows."""
    frame = frame_at("one", [0] * 4, "claims").encode()
    length = int.from_bytes(frame[:8], "little")
    header, body = json.loads(frame[8 : 8 + length]), frame[8 + length :]

    def with_layer(**fields: object) -> bytes:
        return raw_frame(header | {"layer.fc": header["layer.fc"] | fields}, body)

    metadata = header["__metadata__"]
    return [
        raw_frame(header, body, length=1 << 62),
        with_layer(shape=[1 << 40, 4]),
        with_layer(shape=[4, 1 << 40]),
        with_layer(shape=[0, 4], data_offsets=[0, 0]),
        with_layer(shape=[-4, -4]),
        with_layer(dtype="I64"),
        with_layer(dtype="F4096"),
        with_layer(data_offsets=[0, 1 << 50]),
        *(raw_frame(header | {"__metadata__": metadata | {name: "99"}}, body) for name in metadata),
    ]
