"""One file per pretraining method; ``_method`` says what a method is."""

from raysweep.methods._method import Method, MethodSettings, View, collapse_metrics

__all__ = ["Method", "MethodSettings", "View", "collapse_metrics"]
