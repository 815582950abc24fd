"""How well a reference's detectors do on rows whose truth is known. Numbers alone; pages are made elsewhere."""

from hydrophone.detectors.evaluation.attacked_model import ModelAttribution, which_model
from hydrophone.detectors.evaluation.report import Evaluation, evaluate

__all__ = ["Evaluation", "ModelAttribution", "evaluate", "which_model"]
