"""raysweep: which pretraining, how many epochs of it, and how many annotated images do I need?

import raysweep

study = raysweep.load_study("search_spaces/quickstart.yaml")
raysweep.run(study, store="raysweep-store")
raysweep.open_store("raysweep-store").trials()  # an Arrow table
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raysweep._version import __version__

if TYPE_CHECKING:
    from raysweep.errors import RaysweepError
    from raysweep.store import Store
    from raysweep.study import Study, load_study
    from raysweep.sweep import StudyRun, open_store, plan, run

__all__ = ["RaysweepError", "Store", "Study", "StudyRun", "__version__", "load_study", "open_store", "plan", "run"]

_HOME = {
    "RaysweepError": "raysweep.errors",
    "Store": "raysweep.store",
    "Study": "raysweep.study",
    "StudyRun": "raysweep.sweep",
    "load_study": "raysweep.study",
    "open_store": "raysweep.sweep",
    "plan": "raysweep.sweep",
    "run": "raysweep.sweep",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import raysweep`` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'raysweep' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)
