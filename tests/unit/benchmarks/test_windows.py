"""Windows of the detection benchmark hold what they say."""

from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks.windows import class_mix, clean, contaminated

from hydrophone.schemas.frame import Frame


def pool(rows: int, value: float, classes: int = 10) -> Frame:
    predicted = np.arange(rows) % classes
    return Frame("m", {"fc": np.full((rows, 2), value, np.float32)}, event_time_ms=np.array(0), predicted=predicted)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.05, 5), (0.5, 50), (1.0, 100)])
def test_a_contaminated_window_has_its_share_of_hostile_rows(share: float, expected: int) -> None:
    pools = SimpleNamespace(clean=pool(500, 0.0))
    window = contaminated(pools, pool(200, 1.0), 100, share, np.random.default_rng(0))
    assert len(window) == 100
    assert int(window.layers["fc"][:, 0].sum()) == expected


def test_no_row_is_drawn_twice_into_a_window() -> None:
    natural = pool(120, 0.0)
    window = clean(natural, 100, np.random.default_rng(0))
    assert len(set(window.row_origins())) == 100


def test_one_class_makes_half_of_a_shifted_window() -> None:
    natural = pool(2_000, 0.0)
    window = class_mix(natural, natural.predicted, 3, 0.5, 100, np.random.default_rng(0))
    assert int((window.predicted == 3).sum()) == 50
