"""Splits: drawn by subject, seeded and stratified; or read from published lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from raysweep.data.strata import proportional_order, strata_of
from raysweep.datasets._tables import read_text
from raysweep.errors import PackError
from raysweep.settings import Settings


class DrawnValidation(Settings):
    """Options of data sets that publish a test set but no validation set."""

    val_fraction: float = Field(0.15, ge=0, lt=1)
    """Share of the published training subjects that is drawn into the validation split."""
    seed: int = Field(0, ge=0)
    """Seed of that draw."""


class DrawnSplits(Settings):
    """Options of data sets without published splits."""

    val_fraction: float = Field(0.15, ge=0, lt=1)
    """Share of the subjects drawn into the validation split where the files name no splits."""
    test_fraction: float = Field(0.2, ge=0, lt=1)
    """Share of the subjects drawn into the test split where the files name no splits."""
    seed: int = Field(0, ge=0)
    """Seed of that draw."""


def draw_splits(
    strata: Mapping[str, Any], *, val_fraction: float, test_fraction: float = 0.0, seed: int
) -> dict[str, str]:
    """Return subject -> split: each stratum gives its share, its subjects in the order of a keyed hash.

    No library's version changes the draw, and within a stratum no subject's place depends on the others' names.

    Args:
        strata: Subject -> stratum.
        val_fraction: Share of the subjects for validation, at least one of three or more.
        test_fraction: Share for testing, likewise.
        seed: Seed of the draw.

    Raises:
        PackError: if the shares leave nothing to train on.
    """
    if val_fraction + test_fraction >= 1:
        raise PackError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to "
            "train on; together they must be below 1"
        )
    names = sorted(strata, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    codes = {stratum: code for code, stratum in enumerate(sorted(set(strata.values()), key=repr))}
    order = proportional_order(
        np.array([codes[strata[name]] for name in names], np.int64),
        np.arange(len(names)),
        dict.fromkeys(codes.values(), 0.5),
    )
    num_test, num_val = _share(test_fraction, len(names)), _share(val_fraction, len(names))
    split_of = dict.fromkeys(strata, "train")
    for position, place in enumerate(order[: num_test + num_val].tolist()):
        split_of[names[place]] = "test" if position < num_test else "val"
    return split_of


def strata_by_labels(labels: Iterable[tuple[str, Sequence[float]]]) -> dict[str, int]:
    """Return subject -> stratum from the label vectors of its slices: what any of them is positive for counts."""
    merged: dict[str, np.ndarray[Any, Any]] = {}
    for subject, vector in labels:
        values = np.asarray(vector, np.float64)
        merged[subject] = np.fmax(merged[subject], values) if subject in merged else values
    if not merged:
        return {}
    return dict(zip(merged, strata_of(np.stack(list(merged.values()))).tolist(), strict=True))


def read_list(path: Path) -> list[str]:
    """Return the names in a list: the first word of each line, words ending at white space or a comma.

    Raises:
        PackError: if the file is missing or a name is there twice.
    """
    names = [line.replace(",", " ").split()[0] for line in read_text(path).splitlines() if line.strip()]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PackError(f"{path} names {twice!r} twice; a list of a split names each file once")
    return names


def splits_of_lists(lists: Mapping[str, Path]) -> dict[str, str]:
    """Return name -> split from one list for each split.

    Raises:
        PackError: if a name is in two of them.
    """
    split_of: dict[str, str] = {}
    for split, path in lists.items():
        for name in read_list(path):
            if split_of.setdefault(name, split) != split:
                raise PackError(f"{path} names {name!r}, which {lists[split_of[name]]} names too: splits must differ")
    return split_of


def rule(options: DrawnSplits | DrawnValidation, by: str, published: str = "") -> str:
    """Say how splits were made."""
    shares = f"validation {options.val_fraction:g}"
    if isinstance(options, DrawnSplits):
        shares += f" and test {options.test_fraction:g}"
    return f"{published}{'; ' if published else ''}{shares} drawn {by}, seed {options.seed}"


def _share(fraction: float, count: int) -> int:
    """Return a part of ``count``, at least one if it is wanted and three subjects are there to share out."""
    return max(round(fraction * count), int(fraction > 0 and count >= 3))
