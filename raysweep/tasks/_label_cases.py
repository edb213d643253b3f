"""What a classification is scored on: slices, or volumes or subjects with several; and their rows of the cases table.

Shapes: N slices, U units, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raysweep.data.pack import Pack

UnitScope = Literal["slice", "volume", "subject"]


@dataclass(frozen=True)
class Unit:
    """One slice, volume or subject."""

    members: list[int]
    """Positions of its slices among those evaluated."""
    facts: Mapping[str, Any]
    """Its columns in the cases table."""
    truth: NDArray[np.float64]
    """(L,): 1 where any slice has the label, 0 where all known ones lack it, NaN where none is known."""


def units_of(pack: Pack, rows: NDArray[np.int64], truth: NDArray[np.float64], scope: UnitScope) -> list[Unit]:
    """Return the units that slices (N,) with labels (N, L) make up, in the order of their names."""
    facts = [_facts(pack, int(row), scope) for row in rows]
    members: dict[tuple[Any, ...], list[int]] = {}
    for position, of_slice in enumerate(facts):
        members.setdefault(tuple(of_slice.values()), []).append(position)
    order = sorted(members.items(), key=lambda item: tuple(str(value) for value in item[0]))
    return [Unit(found, facts[found[0]], np.fmax.reduce(truth[found])) for _, found in order]


def case_rows(
    pack: Pack,
    units: Sequence[Unit],
    probability: NDArray[np.float64],
    split: str,
    scored: Sequence[int],
    scores: NDArray[np.float64] | None,
) -> list[Mapping[str, Any]]:
    """Return a row for each unit and label.

    Args:
        pack: whose labels they are.
        units: U units.
        probability: (U, L).
        split: the split they are of.
        scored: labels that count in the stage's score.
        scores: (U, L), what each adds to the score where that is a mean over cases, NaN where nothing.
    """
    return [
        {
            "split": split,
            **unit.facts,
            "class_index": label,
            "class_name": name,
            "probability": float(probability[position, label]),
            "target": _nullable(unit.truth[label]),
            "scored": label in scored,
            "score": None if scores is None or label not in scored else _nullable(scores[position, label]),
        }
        for position, unit in enumerate(units)
        for label, name in enumerate(pack.label_names)
    ]


def _facts(pack: Pack, row: int, scope: UnitScope) -> dict[str, Any]:
    """Return what names the unit of a slice."""
    index = pack.index
    found: dict[str, Any] = {"unit": scope, "subject": str(index.subject[row])}
    if scope in ("slice", "volume"):
        found |= {"volume": str(index.volume[row]), "frame": int(index.frame[row])}
    if scope == "slice":
        found["slice_number"] = int(index.slice_number[row])
    return found


def _nullable(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
