"""Which backbones of a grid go with which sources and tasks: weights are of an architecture, packs have channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raysweep import zoo

if TYPE_CHECKING:
    from raysweep.study.schema import Study


def architecture_of(study: Study, source: str) -> str | None:
    """Return the timm architecture that a source's named weights are of; None where any may be."""
    weights = study.sources[source][0].weights
    if weights is None or weights.file is not None:
        return None
    if weights.timm is not None:
        return weights.timm.split(".")[0]
    entry = zoo.weights().get(str(weights.zoo))
    return None if entry is None else entry.architecture


def backbones_of_source(study: Study, source: str) -> list[str]:
    """Return the backbones on the grid that a source's weights are of; all where none is, for the check to refuse."""
    names = [name for name in study.backbone_names if name in study.backbones]
    wanted = architecture_of(study, source)
    fitting = [name for name in names if wanted in (None, study.backbones[name].encoder)]
    return fitting or names


def backbones_of_pack(study: Study, channels: int, names: list[str]) -> list[str]:
    """Return the backbones that a task on a pack of so many channels takes, of some.

    Of backbones that differ in channels alone, a task takes the one with as many as its pack has.
    """
    kept = []
    for name in names:
        own = study.backbones[name]
        twins = [
            other
            for other in names
            if study.backbones[other].model_copy(update={"channels": own.channels}) == own
            and study.backbones[other].channels == channels
        ]
        if own.channels == channels or not twins:
            kept.append(name)
    return kept


def pairs(study: Study, channels: Mapping[str, int]) -> dict[tuple[str, str], list[str]]:
    """Return the backbones of each (task, source) of the grid.

    Args:
        study: the study.
        channels: channels of the pack of each task.
    """
    found = {}
    for source in study.grid.source:
        names = backbones_of_source(study, source)
        for task in study.task_names:
            found[task, source] = backbones_of_pack(study, channels[task], names)
    return found
