"""By which protocol a study runs, in words: what it repeats of a publication, and what it does otherwise."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysweep.protocols import SameAs, Switch, paper_of
from raysweep.protocols._protocol import in_full, places_of, task_in_full, value_at
from raysweep.study.schema import Pretraining, Study


@dataclass(frozen=True)
class SwitchState:
    """Whether a study does what a publication did."""

    switch: Switch
    as_published: bool
    """Whether all of the switch's settings have the published values."""
    otherwise: tuple[str, ...]
    """Keys whose values are others."""


def switch_states(study: Study) -> list[SwitchState]:
    """Return what a study does of each thing that its paper did; nothing where it names no paper."""
    if study.paper is None:
        return []
    document = study.model_dump(mode="json")
    states = []
    for switch in paper_of(study.paper).switches:
        found = list(places_of(switch, document))
        otherwise = tuple(
            ".".join((*place, key))
            for place, key, value in found
            if value_at(_settings(document, place), key) != _published(document, place, key, value)
        )
        if found:
            states.append(SwitchState(switch, not otherwise, otherwise))
    return states


def _published(document: Mapping[str, Any], place: tuple[str, ...], key: str, value: Any) -> Any:
    """Return what the settings at a place would hold at a key with a switch on, whatever the study says itself."""
    own = copy.deepcopy(_at(document, place))
    *parents, last = key.split(".")
    node = own
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value_at(_settings(document, place), value.key) if isinstance(value, SameAs) else value
    return value_at(_full_settings(own, place), key)


def _settings(document: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    return _full_settings(_at(document, place), place)


def _full_settings(values: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings at a place, defaults included, as they are validated: one task's, or the whole study's."""
    if place:
        return task_in_full(values)
    shared = in_full(Pretraining.model_validate(values.get("pretraining", {})))
    return {"seeding": "fixed", **values, "pretraining": shared}


def protocol_line(study: Study) -> str:
    """Return a study's protocol in one sentence."""
    if study.protocol == "paper-exact" and study.paper is not None:
        states = switch_states(study)
        departs = [state.switch.name for state in states if not state.as_published]
        line = f"paper-exact: as {paper_of(study.paper).title} ran it, defects included"
        return f"{line}, except {', '.join(departs)}" if departs else line
    return f"corrected: {', '.join(_traits(study))}"


def protocol_lines(study: Study) -> list[str]:
    """Return a study's protocol and every switch of its paper, a line each."""
    lines = [f"protocol: {protocol_line(study)}"]
    for state in switch_states(study):
        if state.as_published:
            lines.append(f"  {state.switch.name}, as published: {state.switch.published}")
        elif study.protocol == "paper-exact":
            lines.append(f"  {state.switch.name}, not as published ({', '.join(state.otherwise)} set otherwise)")
        else:
            lines.append(f"  {state.switch.name}, corrected: {state.switch.corrected}")
    if study.protocol == "paper-exact" and study.paper is not None:
        lines += [f"  not repeated: {text}" for text in paper_of(study.paper).not_repeated]
    return lines


def _traits(study: Study) -> list[str]:
    """Return what characterises the procedure, as far as every task shares it."""
    tasks = [study.task_settings(name) for name in study.task_names]
    segments = [study.task_settings(name) for name in study.task_names if study.tasks[name]["kind"] == "segmentation"]
    drawings = list(dict.fromkeys(task.drawing for task in tasks))
    traits = [
        "nested annotation subsets shared by all sources"
        if drawings == ["nested"]
        else f"annotation subsets drawn by the rule {' and '.join(drawings)}"
    ]
    if segments and all(task.training.reading.resize_px is None for task in segments):
        traits.append("whole test slices at native resolution")
    if segments and not any(task.evaluation.score_background for task in segments):
        traits.append("scores without background")
    if study.seeding == "none":
        traits.append("no seeds")
    return traits


def _at(document: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    node: Any = document
    for part in place:
        node = node[part]
    return node
