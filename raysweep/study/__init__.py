"""The search-space schema: what a study file may say, and the errors when it says something else."""

from raysweep.study.load import describe_studies, load_study, study_schema
from raysweep.study.schema import (
    Grid,
    PackSource,
    Pretraining,
    PretrainStep,
    Pruning,
    Resources,
    StageResources,
    Stop,
    Study,
    WeightsStep,
)

__all__ = [
    "Grid",
    "PackSource",
    "PretrainStep",
    "Pretraining",
    "Pruning",
    "Resources",
    "StageResources",
    "Stop",
    "Study",
    "WeightsStep",
    "describe_studies",
    "load_study",
    "study_schema",
]
