"""Names of components. A file is the registration: ``methods/simclr.py`` is the method ``simclr``.

Modules whose name starts with an underscore hold shared code and register nothing. Listing reads the first line of each
docstring without importing the module, so it costs no torch import.
"""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

from raysweep.errors import StudyError, did_you_mean

KINDS = ("methods", "datasets", "tasks", "tuning", "zoo", "protocols")
"""Folders whose modules are components: methods, data sets, tasks, modes of fine-tuning, families of weights, and
protocols of published studies."""


def names(kind: str) -> list[str]:
    """Return the registered names of ``kind``, one of `KINDS`, sorted."""
    return sorted(_files(kind))


def describe(kind: str) -> dict[str, str]:
    """Return name -> first line of the module's docstring for every component of ``kind``."""
    found = {}
    for name, path in sorted(_files(kind).items()):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[name] = text.strip().splitlines()[0] if text.strip() else ""
    return found


def load(kind: str, name: str) -> ModuleType:
    """Import the module of one component.

    Raises:
        StudyError: if no such component exists; the message lists the names and the nearest one.
    """
    files = _files(kind)
    if name not in files:
        allowed = ", ".join(sorted(files))
        raise StudyError(f"unknown {kind.removesuffix('s')} {name!r}.{did_you_mean(name, files)} Available: {allowed}.")
    return importlib.import_module(f"raysweep.{kind}.{files[name].stem}")


@cache
def _files(kind: str) -> dict[str, Path]:
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    folder = Path(__file__).parent / kind
    return {path.stem.replace("_", "-"): path for path in folder.glob("*.py") if not path.stem.startswith("_")}
