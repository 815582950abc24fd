"""What a window of ours keeps of its frames, as a reducer for libraries that bring none.

The state is bytes, since these libraries store it after every record: the number of frames, then the k smallest
priorities and their rows. Ours remembers frame ids besides, to tell duplicates. Needs numpy alone.
"""

import hashlib
import json
import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["K", "begin", "reduce"]

K: Final = 512
_COUNTS: Final = struct.Struct("<3q")
_BITS: Final = np.random.Philox(key=0)


def begin(value: bytes) -> bytes:
    """The state of a window after its first frame."""
    return _packed(1, *_smallest(*_rows(value)))


def reduce(state: bytes, value: bytes) -> bytes:
    """The state after one frame more."""
    frames, held, width = _COUNTS.unpack_from(state)
    kept = np.frombuffer(state, np.uint64, held, _COUNTS.size)
    rows = np.frombuffer(state, np.float32, held * width, _COUNTS.size + 8 * held).reshape(held, width)
    priorities, values = _rows(value)
    good = priorities <= kept.max() if held == K else slice(None)
    both = np.concatenate([kept, priorities[good]]), np.concatenate([rows, values[good]])
    return _packed(frames + 1, *_smallest(*both))


def _rows(value: bytes) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Priorities and finite rows of a frame's first layer, made as ours are."""
    start = 8 + int.from_bytes(value[:8], "little")
    header: dict[str, Any] = json.loads(value[8:start])
    layer = next(entry for name, entry in header.items() if name.startswith("layer."))
    rows = np.frombuffer(value, np.float32, int(np.prod(layer["shape"])), start + layer["data_offsets"][0])
    rows = rows.reshape(layer["shape"])
    digest = hashlib.blake2b(header["__metadata__"]["frame_id"].encode(), digest_size=16).digest()
    state: Any = {
        "bit_generator": "Philox",
        "state": {"counter": (0, 0, 0, 0), "key": struct.unpack("<2Q", digest)},
        "buffer": (0, 0, 0, 0),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    _BITS.state = state
    finite = np.isfinite(rows).all(axis=1)
    return _BITS.random_raw(len(rows))[finite], rows[finite]


def _smallest(
    priorities: NDArray[np.uint64], rows: NDArray[np.float32]
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    if priorities.size <= K:
        return priorities, rows
    keep = np.argpartition(priorities, K)[:K]
    return priorities[keep], rows[keep]


def _packed(frames: int, priorities: NDArray[np.uint64], rows: NDArray[np.float32]) -> bytes:
    return _COUNTS.pack(frames, *rows.shape) + priorities.tobytes() + np.ascontiguousarray(rows).tobytes()
