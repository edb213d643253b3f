"""Switches: what a published study did, what raysweep does instead, and the settings in between."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raysweep import registry

EACH_TASK = "tasks.*."
"""Begins the keys of settings that a switch sets in every task of its kind."""


@dataclass(frozen=True)
class SameAs:
    """A value that another key of the same task has, such as ``training.image_size``."""

    key: str
    default: Any = None
    """Where the task leaves that key out; None leaves the switch out too."""


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


def _resolved(value: Any, task: Mapping[str, Any]) -> Any:
    return value_at(task, value.key, value.default) if isinstance(value, SameAs) else value


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
