"""One file per pretraining method; ``_method`` says what a method is."""

from raysweep.methods._method import Batch, Method, MethodSettings, Run, View, collapse_metrics

__all__ = ["Batch", "Method", "MethodSettings", "Run", "View", "collapse_metrics"]
