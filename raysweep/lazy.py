"""torch, imported on first use, for modules that declare settings next to the code that trains with them.

Planning and the command line read those settings and must answer in a fraction of a second, so nothing they import may
pull torch in. A module writes ``from raysweep.lazy import F, nn, torch`` and uses the names as usual inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    import torch.nn as nn
    import torch.nn.functional as F
else:
    import importlib

    class _LazyModule:
        """Stands for a module and imports it when an attribute is first read."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            return getattr(importlib.import_module(self._name), attribute)

        def __repr__(self) -> str:
            return f"<lazy module {self._name!r}>"

    torch = _LazyModule("torch")
    nn = _LazyModule("torch.nn")
    F = _LazyModule("torch.nn.functional")

__all__ = ["F", "nn", "torch"]
