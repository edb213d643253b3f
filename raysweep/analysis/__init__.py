"""Tables in, answers out: each function takes a study's tables and returns an Arrow table."""

from raysweep.analysis.aggregate import interquartile_means
from raysweep.analysis.arms import Arm, Setting
from raysweep.analysis.comparison import comparison
from raysweep.analysis.convergence import convergence, convergence_summary, speed_up
from raysweep.analysis.cost import cost
from raysweep.analysis.data_efficiency import annotations_needed, area_under_curve, data_efficiency
from raysweep.analysis.efficiency import efficiency
from raysweep.analysis.equivalence import equivalence
from raysweep.analysis.mixed_model import mixed_model
from raysweep.analysis.power_law import power_law
from raysweep.analysis.pretraining_length import pretraining_length
from raysweep.analysis.ranking import ranking
from raysweep.analysis.seeds_needed import seeds_needed
from raysweep.analysis.stability import stability, stability_summary

__all__ = [
    "Arm",
    "Setting",
    "annotations_needed",
    "area_under_curve",
    "comparison",
    "convergence",
    "convergence_summary",
    "cost",
    "data_efficiency",
    "efficiency",
    "equivalence",
    "interquartile_means",
    "mixed_model",
    "power_law",
    "pretraining_length",
    "ranking",
    "seeds_needed",
    "speed_up",
    "stability",
    "stability_summary",
]
