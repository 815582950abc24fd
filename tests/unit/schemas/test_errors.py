"""The tree that `errors.py` prints is the tree it defines, and a hostile record cannot choose how much is logged."""

import re
from itertools import pairwise

import pytest

from hydrophone.schemas import errors
from hydrophone.schemas.errors import DETAIL_LIMIT, FrameInvalid, HydrophoneError, RecordRejected


def printed_tree() -> dict[str, str]:
    """Child to parent, from the drawing: four columns a level."""
    found: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.match(r"    ((?:[│├└─ ]{4})*)([A-Z]\w+)(?:\s|$)", line)
        if drawn:
            depth = len(drawn[1]) // 4
            path = [*path[:depth], drawn[2]]
            found |= {child: parent for parent, child in pairwise(path)}
    return found


def test_the_printed_tree_is_the_tree() -> None:
    defined = {
        name: getattr(errors, name).__base__.__name__ for name in errors.__all__ if name != HydrophoneError.__name__
    }
    assert printed_tree() == defined


def test_an_error_carries_its_reason_and_a_bounded_detail() -> None:
    error = FrameInvalid("bad_shape", "x" * 10_000)
    assert isinstance(error, RecordRejected)
    assert error.reason == "bad_shape"
    assert error.detail == "x" * DETAIL_LIMIT
    with pytest.raises(HydrophoneError, match=r"^bad_shape: x{500}$"):
        raise error
