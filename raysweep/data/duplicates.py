"""Images that are equal bit for bit, and whether they lie in different splits."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def content_of(image: Array) -> tuple[int, int]:
    """Return 128 bits of a hash over an image's shape, type and pixels; zeros for a constant image.

    Empty slices are alike in any data set and say nothing about each other.
    """
    if image.min() == image.max():
        return 0, 0
    hashed = hashlib.blake2b(f"{image.shape}{image.dtype.name}".encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(image).data)
    first, second = np.frombuffer(hashed.digest(), np.uint64)
    return int(first), int(second)


def equal_images(content: Array, split: Array) -> tuple[list[list[int]], int]:
    """Find images that occur more than once.

    Args:
        content: (N, 2) uint64, the hashes of N slices; (N, 0) where a pack has none.
        split: (N,) the split of each.

    Returns:
        The rows of each image that lies in more than one split, and the number of slices that repeat an earlier one.
    """
    if not content.shape[1]:
        return [], 0
    rows = np.flatnonzero(content.any(axis=1))
    order = rows[np.lexsort((rows, content[rows, 1], content[rows, 0]))]
    same = (content[order[1:]] == content[order[:-1]]).all(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], ~same])) if len(order) else np.empty(0, np.int64)
    ends = np.append(starts[1:], len(order))
    repeated = np.flatnonzero(ends - starts > 1)
    groups = [order[starts[number] : ends[number]] for number in repeated]
    across = [group.tolist() for group in groups if len(np.unique(split[group])) > 1]
    return sorted(across), int(same.sum())
