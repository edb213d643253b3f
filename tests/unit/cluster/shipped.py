"""The cluster files of the repository, and what each is made of."""

from __future__ import annotations

from pathlib import Path

from raysweep.cluster import KINDS, VARIANTS, render

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "cluster"
FILES = {kind.file: (kind.name, {}) for kind in KINDS.values()} | VARIANTS
"""Path below ``cluster/`` -> kind and options."""


def rendered(file: str) -> str:
    """Return what a file of the repository must be."""
    kind, options = FILES[file]
    return render(kind, options, f"cluster/{file}")
