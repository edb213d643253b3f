"""Tiny data sets in the true layout of the real ones, one file each, for tests without any download.

``write_lookalike("chestxray14", folder)`` writes files and returns the packer's options. A module's name is that of the
packer; its ``write_lookalike(folder, *, subjects, seed, ...)`` knows how the download looks: folders, file names, tags,
columns and their quirks.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def names() -> list[str]:
    """Return the names of the data sets that have a look-alike."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(path.stem.replace("_", "-") for path in files if not path.stem.startswith("_"))


def write_lookalike(name: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """Write the look-alike of a data set into ``folder`` and return the options to pack it with."""
    module = importlib.import_module(f"tests.lookalikes.{name.replace('-', '_')}")
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = module.write_lookalike(folder, **settings)
    return options
