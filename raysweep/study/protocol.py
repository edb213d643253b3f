"""By which protocol a study runs, in words: what it repeats of a publication, and what it does otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysweep.protocols import Switch, paper_of
from raysweep.protocols._protocol import places_of, value_at
from raysweep.study.schema import Study


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
    document = _document(study)
    states = []
    for switch in paper_of(study.paper).switches:
        wanted = study_with(study, switch)
        found = [
            (".".join((*place, key)), value_at(_at(document, place), key), value_at(_at(wanted, place), key))
            for place, key, _ in places_of(switch, document)
        ]
        otherwise = tuple(key for key, own, published in found if own != published)
        states.append(SwitchState(switch, bool(found) and not otherwise, otherwise))
    return [state for state in states if state.as_published or state.otherwise]


def study_with(study: Study, switch: Switch) -> dict[str, Any]:
    """Return the settings that a study would have with one switch on, whatever it says itself."""
    document = _document(study)
    for place, key, value in places_of(switch, document):
        node = _at(document, place)
        published = value_at(node, value.key, value.default) if hasattr(value, "key") else value
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = published
    return _document(Study.model_validate(document))


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


def _document(study: Study) -> dict[str, Any]:
    """Return a study's settings in full: with every default, and what its tasks leave out."""
    document = study.model_dump(mode="json")
    document["pretraining"]["reading"] = study.pretraining.reading.model_dump(mode="json")
    document["seeding"] = study.seeding
    for name, task in document["tasks"].items():
        settings = study.task_settings(name)
        document["tasks"][name] = {"kind": task["kind"], **_in_full(settings)}
    return document


def _in_full(settings: Any) -> dict[str, Any]:
    """Return settings with those that a dump leaves out at their defaults."""
    full = settings.model_dump(mode="json")
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if hasattr(type(value), "model_fields"):
            full[name] = _in_full(value)
        elif name not in full:
            full[name] = value
    return full


def _at(document: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    node: Any = document
    for part in place:
        node = node[part]
    return node
