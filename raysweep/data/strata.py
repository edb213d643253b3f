"""Strata from label vectors, and orders whose every prefix has each stratum's share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NO_POSITIVE = -1
NO_LABEL = -2


def strata_of(labels: Array) -> npt.NDArray[np.int64]:
    """Return the stratum of each unit: the rarest label it is positive for, of ties the first.

    With one-hot labels that is its class. With many labels it is what must not be lost in a small subset.

    Args:
        labels: (N, L) label vectors; above 0.5 is positive, NaN unknown.

    Returns:
        (N,) indices of labels; -1 where none is positive, -2 where none is known.
    """
    positive = np.nan_to_num(labels, nan=0.0) > 0.5
    rarest_first = np.argsort(positive.sum(axis=0), kind="stable")
    strata = np.full(len(labels), NO_POSITIVE, np.int64)
    for label in rarest_first[::-1]:
        strata[positive[:, label]] = label
    strata[np.isnan(labels).all(axis=1)] = NO_LABEL
    return strata


def proportional_order(strata: Array, within: Array, offsets: dict[Any, float]) -> npt.NDArray[np.int64]:
    """Return an order of units whose every prefix has about each stratum's share of the whole.

    Args:
        strata: (N,) stratum of each unit.
        within: (N,) ranks that order the units of a stratum; they also break ties between strata.
        offsets: Stratum -> where between 0 and 1 its first unit lies in its share.

    Source: systematic sampling; Cochran, Sampling Techniques, 3rd edition, section 8.
    """
    position = np.empty(len(strata), np.float64)
    for stratum in np.unique(strata).tolist():
        members = np.flatnonzero(strata == stratum)
        members = members[np.argsort(within[members], kind="stable")]
        position[members] = (np.arange(len(members)) + offsets[stratum]) / len(members)
    return np.lexsort((within, position)).astype(np.int64)
