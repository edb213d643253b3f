"""Masks written as run lengths in a table's cell, as challenges publish them."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import numpy.typing as npt

from raysweep.errors import PackError

Start = Literal["relative", "from 0", "from 1"]


def decode_runs(text: str, height: int, width: int, start: Start, where: str) -> npt.NDArray[np.uint8]:
    """Return the mask of pairs of start and length, (H, W) of 0 and 1; pixels are counted down each column.

    Args:
        text: The pairs, separated by white space.
        height: Rows of the image.
        width: Columns of the image.
        start: What a start counts from: the end of the run before, or the first pixel, counted as 0 or as 1.
        where: What the text belongs to, for messages.

    Raises:
        PackError: if the text is not pairs of numbers, or a run leaves the image.
    """
    if not re.fullmatch(r"\s*(\d+\s+\d+\s*)*", text):
        raise PackError(f"{where} has the run lengths {text[:40]!r}; expected are pairs of numbers")
    starts, lengths = np.array(text.split(), np.int64).reshape(-1, 2).T
    if start == "relative":
        starts = np.cumsum(starts) + np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(starts) else starts
    elif start == "from 1":
        starts = starts - 1
    ends = starts + lengths
    if len(starts) and (starts.min() < 0 or ends.max() > height * width):
        raise PackError(f"{where} has a run from pixel {starts.min()} to {ends.max()} of {height * width}")
    mask = np.zeros(height * width, np.uint8)
    for first, end in zip(starts.tolist(), ends.tolist(), strict=True):
        mask[first:end] = 1
    return np.ascontiguousarray(mask.reshape(width, height).T)
