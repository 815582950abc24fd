"""The statistics: is this window different from clean traffic, and which rows make it so. Tensors in, nouns out."""

from hydrophone.detectors.reference import Reference, fit_reference
from hydrophone.detectors.result import LayerResult, SuspectRow, WindowResult
from hydrophone.detectors.two_sample import TwoSampleResult, mmd_permutation_test

__all__ = [
    "LayerResult",
    "Reference",
    "SuspectRow",
    "TwoSampleResult",
    "WindowResult",
    "fit_reference",
    "mmd_permutation_test",
]
