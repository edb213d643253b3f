"""Tables in, answers out: each function takes a study's tables and returns an Arrow table."""

from raysweep.analysis.arms import Arm, Setting
from raysweep.analysis.comparison import comparison
from raysweep.analysis.convergence import convergence, convergence_summary
from raysweep.analysis.cost import cost
from raysweep.analysis.data_efficiency import annotations_needed, data_efficiency
from raysweep.analysis.pretraining_length import pretraining_length

__all__ = [
    "Arm",
    "Setting",
    "annotations_needed",
    "comparison",
    "convergence",
    "convergence_summary",
    "cost",
    "data_efficiency",
    "pretraining_length",
]
