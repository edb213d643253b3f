"""Annotation subsets: which slices a trial may learn from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raysweep.data.pack import Pack
from raysweep.data.pack_index import PackIndex
from raysweep.errors import PackError
from raysweep.planning import PackFacts
from raysweep.planning.model import Unit

UNITS: tuple[Unit, ...] = ("slice", "volume", "subject")

_STREAM = 0x5AB5E7
"""Keeps these draws apart from every other use of the same seed."""


def pack_facts(pack: Pack) -> PackFacts:
    """Return what planning needs to know of a pack."""
    annotated = pack.select(split="train", annotated=True)
    return PackFacts(
        path=str(pack.path),
        digest=pack.digest,
        num_channels=pack.num_channels,
        num_classes=len(pack.class_names),
        num_train_slices=len(pack.select(split="train")),
        num_annotated={unit: len(np.unique(_unit_names(pack.index, annotated, unit))) for unit in UNITS},
    )


def annotation_subset(
    pack: Pack, count: int, *, unit: Unit = "slice", nested: bool = True, seed: int = 0
) -> NDArray[np.int64]:
    """Return the rows of ``count`` annotated units of the train split, ascending.

    The draw depends on the pack, the unit and the seed alone: every source gets the same subset. Nested subsets are
    prefixes of one random order, so that a smaller one is inside a larger one; otherwise each count is drawn anew.

    Raises:
        PackError: if the train split has fewer annotated units.
    """
    rows = pack.select(split="train", annotated=True)
    names = _unit_names(pack.index, rows, unit)
    units = np.unique(names)
    if not 1 <= count <= len(units):
        raise PackError(
            f"{pack.path}: {count} annotated {unit}s asked for; allowed: 1 to {len(units)}, all of the train split"
        )
    entropy = [_STREAM, seed] if nested else [_STREAM, seed, count]
    order = np.random.default_rng(entropy).permutation(len(units))
    return rows[np.isin(names, units[order[:count]])]


def row_names(pack: Pack, rows: NDArray[np.int64]) -> list[str]:
    """Return readable names of slices: subject/frame/slice number (subject/slice number where there is no frame)."""
    index = pack.index
    return [
        f"{index.subject[row]}/{index.frame[row]}/{index.slice_number[row]}"
        if index.frame[row] >= 0
        else f"{index.subject[row]}/{index.slice_number[row]}"
        for row in rows
    ]


def _unit_names(index: PackIndex, rows: NDArray[np.int64], unit: Unit) -> NDArray[np.str_]:
    if unit == "subject":
        return index.subject[rows]
    volumes = [f"{volume}#{frame}" for volume, frame in zip(index.volume[rows], index.frame[rows], strict=True)]
    if unit == "slice":
        volumes = [f"{volume}#{number:06d}" for volume, number in zip(volumes, index.slice_number[rows], strict=True)]
    return np.array(volumes, dtype=np.str_)
