"""From the numbers stored in mask files to class indices, and names for the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import IGNORE_LABEL
from raysweep.errors import PackError

_MAX_LISTED = 12
_MAX_SUGGESTED = 4


def translate_labels(
    path: Path,
    stored: npt.NDArray[Any],
    classes: Sequence[str] | None,
    mask_values: Mapping[int, int] | None,
) -> npt.NDArray[np.uint8]:
    """Return the class indices of a mask, (H, W).

    Args:
        path: The mask's file, for messages.
        stored: The numbers it holds, (H, W) integers.
        classes: Class names, which bound the indices; None allows 0 to 255.
        mask_values: Stored number -> class index or 255 to ignore, with 0 -> 0 unless named; None: they are the same.

    Raises:
        PackError: naming the numbers found, and what is allowed.
    """
    found = np.unique(stored).tolist()
    mapping: Mapping[int, int] = {value: value for value in found}
    if mask_values is not None:
        mapping = {0: 0, **mask_values}
    highest = 255 if classes is None else len(classes) - 1
    allowed_codes = {*range(highest + 1), IGNORE_LABEL} if mask_values is not None else {*range(highest + 1)}
    if any(value not in mapping or mapping[value] not in allowed_codes for value in found):
        allowed = ", ".join(map(str, mapping)) if mask_values is not None else f"0 to {highest}"
        raise PackError(
            f"{path} has the labels {_listed(found)}; allowed are {allowed}. Correct the mask, extend the "
            f"option classes, or translate labels with the option mask_values, such as {_suggestion(found)}."
        )
    table = np.array([mapping[value] for value in found], np.uint8)
    return table[np.searchsorted(found, stored)]


def check_classes(path: Path, stored: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return stored class indices as uint8.

    Raises:
        PackError: if there are others than those of the classes.
    """
    found = np.unique(stored)
    if not np.isin(found, np.arange(len(classes))).all():
        named = ", ".join(f"{code} {name}" for code, name in enumerate(classes))
        raise PackError(f"{path} has the labels {found.tolist()}; allowed are {named}")
    return stored.astype(np.uint8)


def infer_class_names(source: Path, labels: Sequence[int]) -> tuple[str, ...]:
    """Name classes by the highest label: background, class_1, ...; no labels, no classes.

    Raises:
        PackError: if most labels below the highest never occur, as in masks of 0 and 255.
    """
    if not labels:
        return ()
    highest = max(labels)
    if highest + 1 > 2 * len(labels):
        raise PackError(
            f"the masks of {source} have the labels {_listed(labels)}, which do not look like class indices. "
            f"Translate them with the option mask_values, such as {_suggestion(labels)}, or name the classes "
            "with the option classes."
        )
    return ("background", *(f"class_{code}" for code in range(1, highest + 1)))


def _listed(labels: Sequence[int]) -> str:
    more = f", ... ({len(labels)} labels)" if len(labels) > _MAX_LISTED else ""
    return ", ".join(map(str, labels[:_MAX_LISTED])) + more


def _suggestion(labels: Sequence[int]) -> str:
    values = [value for value in labels if value != 0][:_MAX_SUGGESTED]
    return "{" + ", ".join(f"{value}: {code}" for code, value in enumerate(values, start=1)) + "}"
