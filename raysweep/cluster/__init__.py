"""Cluster files: templates filled with options, and the rules that a file must keep. Neither Ray nor torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysweep.cluster.kinds import KINDS, VARIANTS, Kind
from raysweep.cluster.options import ClusterOptions

__all__ = ["KINDS", "VARIANTS", "ClusterOptions", "Kind", "render"]


def render(kind: str, options: Mapping[str, Any] | None = None, file: str | Path | None = None) -> str:
    """Return the text of a cluster file; see :func:`raysweep.cluster.fill.fill`."""
    from raysweep.cluster.fill import fill  # the command line's help does without what reads studies

    return fill(kind, options, file)
