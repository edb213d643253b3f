"""One file per pretraining method; ``_method`` says what a method is."""

from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import collapse_metrics, feature_std
from raysweep.methods._method import Method, full_precision
from raysweep.methods._ranks import ALONE, Ranks
from raysweep.methods._settings import MethodSettings, View

__all__ = [
    "ALONE",
    "Batch",
    "Method",
    "MethodSettings",
    "Ranks",
    "Run",
    "View",
    "collapse_metrics",
    "feature_std",
    "full_precision",
]
