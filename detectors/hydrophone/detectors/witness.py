"""Which rows of a window pulled its statistic. Nothing here costs another kernel product: the row sums are at hand.

The witness of a row y is mean k(y, other window rows) − mean k(y, reference rows) (Gretton et al., JMLR 13, 2012,
section 2.3): large where the window has more mass than the reference.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hydrophone.detectors.window_test import WindowStatistics

__all__ = ["row_scores"]


def row_scores(statistics: WindowStatistics) -> Float[Tensor, " m"]:
    """One score a row: its share of each branch's studentised statistic, branches weighted by how much they found.

    The weights are a softmax of the observed statistics, so the score explains the maximum without betting all on it.
    """
    weights = torch.softmax(statistics.joint.statistics[:, 0], 0)
    return (weights[:, None] * statistics.witness).sum(0)
