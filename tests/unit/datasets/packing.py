"""Packing look-alikes, for tests of single packers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raysweep.data.pack import Pack
from raysweep.datasets import build_pack
from tests.lookalikes import write_lookalike


def pack_lookalike(name: str, folder: Path, *, options: dict[str, Any] | None = None, **settings: Any) -> Pack:
    """Write a look-alike into ``folder/files`` and pack it; ``options`` add to the look-alike's own."""
    found = write_lookalike(name, folder / "files", **settings)
    return pack_files(name, folder, {**found, **(options or {})})


def pack_files(name: str, folder: Path, options: dict[str, Any] | None = None) -> Pack:
    """Pack what lies in ``folder/files``."""
    build_pack(name, folder / "files", folder / "out.h5", options or {}, workers=1)
    return Pack.open(folder / "out.h5")


def split_of_subjects(pack: Pack) -> dict[str, str]:
    return {str(s): str(p) for s, p in zip(pack.index.subject, pack.index.split, strict=True)}


def labels_of(pack: Pack, row: int) -> dict[str, float]:
    return dict(zip(pack.label_names, pack.index.labels[row].tolist(), strict=True))
