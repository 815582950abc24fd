"""Which row is which, and where it stands in a keyed random order. Sampling and ordering themselves live elsewhere."""

import hashlib
import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.schemas.origins import Origins

__all__ = ["FramePriorities", "origin_priorities"]

PHILOX_START: Final = 4
"""Philox-4x64 yields four numbers a counter step; a buffer position of four means none is left."""

_ZEROS: Final = (0, 0, 0, 0)
_KEY: Final = struct.Struct("<2Q")


class FramePriorities:
    """Priorities of a frame's rows: the row-th 64-bit output of Philox keyed by BLAKE2b-128(key, frame_id).

    Who does not know `key` cannot tell which rows a bottom-k sample will keep. One generator is re-keyed for every
    frame, with plain numbers: making a new one costs three times the hash, and handing it arrays twice as much again,
    for it reads them number by number. Not for two threads at once.
    """

    def __init__(self, key: bytes) -> None:
        if not 1 <= len(key) <= 64:
            raise ValueError(f"`key` must be 1 to 64 bytes (BLAKE2b); got {len(key)}")
        self._hash = hashlib.blake2b(key=key, digest_size=16)
        self._bits = np.random.Philox(key=0)

    def __call__(self, frame_id: str, rows: int) -> NDArray[np.uint64]:
        """Priorities of rows 0..rows-1 of a frame."""
        keyed = self._hash.copy()
        keyed.update(frame_id.encode())
        state: Any = {  # numpy's own type for it knows arrays only
            "bit_generator": "Philox",
            "state": {"counter": _ZEROS, "key": _KEY.unpack(keyed.digest())},
            "buffer": _ZEROS,
            "buffer_pos": PHILOX_START,
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._bits.state = state
        return self._bits.random_raw(rows)  # type: ignore[no-any-return, unused-ignore]


def origin_priorities(origins: Origins, key: bytes) -> NDArray[np.uint64]:
    """The priority of each row by its origin, `[len(origins)]`; the same row gives the same number in any gathering."""
    priorities = FramePriorities(key)
    found = np.empty(len(origins), np.uint64)
    frame_ids, frames = origins.frames()
    by_frame = np.argsort(frames, kind="stable")
    starts = np.searchsorted(frames[by_frame], np.arange(1, len(frame_ids)))
    # One frame's table at a time: a gathering may hold a late row of each of many frames.
    for frame_id, where in zip(frame_ids.tolist(), np.split(by_frame, starts), strict=True):
        if where.size:
            rows = origins.rows[where]
            found[where] = priorities(frame_id, int(rows.max()) + 1)[rows]
    return found
