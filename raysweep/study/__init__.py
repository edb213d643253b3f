"""The search-space schema: what a study file may say, and the errors when it says something else."""

from raysweep.study.chains import PretrainStep, WeightsStep, is_weights_file
from raysweep.study.load import describe_studies, load_study, study_schema
from raysweep.study.schema import (
    Grid,
    PackSource,
    Pretraining,
    Pruning,
    Resources,
    StageResources,
    Stop,
    Study,
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
    "is_weights_file",
    "load_study",
    "study_schema",
]
