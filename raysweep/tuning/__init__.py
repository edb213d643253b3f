"""Modes of fine-tuning: what of a network is trained, and how fast. A file is a mode."""

from raysweep.tuning._tuning import ParameterGroup, Tuning, TuningSettings, build_tuning

__all__ = ["ParameterGroup", "Tuning", "TuningSettings", "build_tuning"]
