"""Switches: what a published study did, what raysweep does instead, and the settings in between."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from raysweep import registry

EACH_TASK = "tasks.*."
"""Begins the keys of settings that a switch sets in every task of its kind."""


@dataclass(frozen=True)
class SameAs:
    """A value that another key of the same task has, such as ``training.image_size``."""

    key: str


@dataclass(frozen=True)
class Switch:
    """One thing that a published study did, and raysweep by default does not."""

    name: str
    published: str
    """What the study did, for people."""
    corrected: str
    """What raysweep does instead."""
    settings: Mapping[str, Any]
    """Dotted keys of a study file, ``tasks.*.`` for those of every task, and the values that repeat the study."""
    task: str | None = None
    """Kind of task whose settings these are; None for any."""


@dataclass(frozen=True)
class Paper:
    """A published study and how its code departs from what raysweep does by default."""

    title: str
    switches: tuple[Switch, ...]
    absent: Mapping[str, str]
    """Defects that neither protocol repeats, for they only end or spoil a run: what happened, and what happens here."""
    not_repeated: tuple[str, ...] = ()
    """What paper-exact leaves out all the same."""


def names() -> list[str]:
    """Return the published studies that have a protocol."""
    return registry.names("protocols")


def paper_of(name: str) -> Paper:
    """Return a published study by name.

    Raises:
        StudyError: if there is none of that name.
    """
    paper: Paper = registry.load("protocols", name).PAPER
    return paper


def as_published(document: Mapping[str, Any], paper: Paper) -> dict[str, Any]:
    """Return a study document with every switch of a paper set, except keys that the document has itself."""
    changed: dict[str, Any] = copy.deepcopy(dict(document))
    for switch in paper.switches:
        for place, key, value in places_of(switch, changed):
            node = _node(changed, place)
            if node is not None:
                _set_where_missing(node, key, _resolved(value, node))
    return changed


def places_of(switch: Switch, document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Yield where in a document a switch sets what: the path to a task, or none, a dotted key below it, the value."""
    tasks = document.get("tasks")
    for key, value in switch.settings.items():
        if not key.startswith(EACH_TASK):
            yield (), key, value
            continue
        for name, task in tasks.items() if isinstance(tasks, Mapping) else ():
            if isinstance(task, Mapping) and switch.task in (None, task.get("kind")):
                yield ("tasks", str(name)), key.removeprefix(EACH_TASK), value


def value_at(node: Any, key: str, default: Any = None) -> Any:
    """Return what a document has at a dotted key."""
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node


def task_in_full(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task of a study document with every default of its kind.

    Raises:
        ValidationError: if its settings are wrong.
    """
    own = {key: value for key, value in values.items() if key != "kind"}
    return in_full(registry.load("tasks", values["kind"]).TASK.Settings.model_validate(own))


def in_full(settings: Any) -> dict[str, Any]:
    """Return settings as JSON-like values, with those that a dump leaves out at their defaults."""
    full: dict[str, Any] = settings.model_dump(mode="json")
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if hasattr(type(value), "model_fields"):
            full[name] = in_full(value)
        elif name not in full:
            full[name] = value
    return full


def _resolved(value: Any, task: Mapping[str, Any]) -> Any:
    if not isinstance(value, SameAs):
        return value
    try:
        return value_at(task_in_full(task), value.key)
    except ValidationError:
        return None  # the study is refused for what is wrong in the task


def _node(document: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any] | None:
    node: Any = document
    for part in place:
        node = node.get(part)
    return node if isinstance(node, dict) else None


def _set_where_missing(node: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        return
    *parents, last = key.split(".")
    for part in parents:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            return  # the schema says what is wrong there
        node = child
    node.setdefault(last, copy.deepcopy(value))
