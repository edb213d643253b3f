"""Annotation subsets: which slices a trial may learn from."""

from __future__ import annotations

import random
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from raysweep.data.pack import Pack
from raysweep.data.pack_index import PackIndex
from raysweep.data.strata import proportional_order, strata_of
from raysweep.errors import PackError
from raysweep.planning import PackFacts
from raysweep.planning.model import Unit
from raysweep.settings import Drawing

UNITS: tuple[Unit, ...] = ("slice", "volume", "subject")

DRAWINGS: tuple[Drawing, ...] = get_args(Drawing)
_PUBLISHED: tuple[Drawing, ...] = ("kalapos2022", "taher2021")

_STREAM = 0x5AB5E7
"""Keeps these draws apart from every other use of the same seed."""


def pack_facts(pack: Pack) -> PackFacts:
    """Return what planning needs to know of a pack."""
    annotated = pack.select(split="train", annotated=True)
    return PackFacts(
        path=pack.location,
        digest=pack.digest,
        num_channels=pack.num_channels,
        num_classes=len(pack.class_names),
        num_train_slices=len(pack.select(split="train")),
        num_annotated={unit: len(np.unique(_unit_names(pack.index, annotated, unit))) for unit in UNITS},
    )


def annotation_subset(
    pack: Pack,
    count: int,
    *,
    unit: Unit = "slice",
    drawing: Drawing = "nested",
    stratify: bool = True,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return the rows of ``count`` annotated units of the train split, ascending.

    The draw depends on the pack and these arguments alone: every source gets the same subset, and other counts of a
    grid have no influence. With ``stratify``, a pack's labels are in every subset about as frequent as in the whole,
    a unit counting for the rarest label it has.

    Raises:
        PackError: if the train split has fewer annotated units, or the drawing does not know the unit.
    """
    rows = pack.select(split="train", annotated=True)
    names = _unit_names(pack.index, rows, unit)
    units, unit_of_row = np.unique(names, return_inverse=True)
    if not 1 <= count <= len(units):
        raise PackError(
            f"{pack.path}: {count} annotated {unit}s asked for; allowed: 1 to {len(units)}, all of the train split"
        )
    if drawing in _PUBLISHED:
        if unit != "slice":
            raise PackError(f"{drawing} draws slices; {unit}s are drawn as {DRAWINGS[0]} or {DRAWINGS[1]}")
        return rows[np.sort(_published_draw(drawing, len(rows), count, seed))]
    rng = np.random.default_rng([_STREAM, seed] if drawing == "nested" else [_STREAM, seed, count])
    within = rng.permutation(len(units))
    strata = _strata(pack, rows, unit_of_row) if stratify else np.zeros(len(units), np.int64)
    # Where a stratum's first unit lies in its share is drawn, so that of many small strata none is always first.
    offsets = {stratum: float(rng.uniform()) for stratum in np.unique(strata).tolist()}
    order = proportional_order(strata, within, offsets)
    return rows[np.isin(unit_of_row, order[:count])]


def _published_draw(drawing: Drawing, total: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return positions as a published study's code drew them from a list of slices."""
    if drawing == "kalapos2022":
        return np.random.RandomState(seed).choice(total, count, replace=False).astype(np.int64)
    order = list(range(total))
    random.Random(99).shuffle(order)
    return np.array(order[:count], np.int64)


def row_names(pack: Pack, rows: NDArray[np.int64]) -> list[str]:
    """Return readable names of slices: subject/frame/slice number (subject/slice number where there is no frame)."""
    index = pack.index
    return [
        f"{index.subject[row]}/{index.frame[row]}/{index.slice_number[row]}"
        if index.frame[row] >= 0
        else f"{index.subject[row]}/{index.slice_number[row]}"
        for row in rows
    ]


def _strata(pack: Pack, rows: NDArray[np.int64], unit_of_row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the stratum of each unit: a label counts for a unit if any of its slices has it."""
    num_units = int(unit_of_row.max()) + 1
    if not pack.label_names:
        return np.zeros(num_units, np.int64)
    labels = np.full((num_units, len(pack.label_names)), np.nan, np.float32)
    np.fmax.at(labels, unit_of_row, pack.index.labels[rows])
    return strata_of(labels)


def _unit_names(index: PackIndex, rows: NDArray[np.int64], unit: Unit) -> NDArray[np.str_]:
    if unit == "subject":
        return index.subject[rows]
    volumes = [f"{volume}#{frame}" for volume, frame in zip(index.volume[rows], index.frame[rows], strict=True)]
    if unit == "slice":
        volumes = [f"{volume}#{number:06d}" for volume, number in zip(volumes, index.slice_number[rows], strict=True)]
    return np.array(volumes, dtype=np.str_)
