"""Pictures and files that look-alikes are made of."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image


def blobs(rng: np.random.Generator, height: int, width: int, number: int) -> np.ndarray:
    """Return (number, H, W) masks of ellipses side by side, each at least three pixels wide."""
    y, x = np.mgrid[:height, :width]
    masks = []
    for place in range(number):
        centre = height * rng.uniform(0.4, 0.6), width * (place + rng.uniform(0.45, 0.55)) / number
        radii = height * rng.uniform(0.2, 0.35), max(1.6, width / number * rng.uniform(0.3, 0.45))
        masks.append(((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1)
    return np.array(masks).reshape(number, height, width)


def picture(rng: np.random.Generator, masks: np.ndarray, highest: int, dtype: Any = np.uint8) -> np.ndarray:
    """Return a noisy image, (H, W), in which structures are brighter, from 0 to ``highest``."""
    noise = rng.uniform(0, 0.4, masks.shape[1:])
    signal = np.clip(noise + 0.5 * masks.any(axis=0), 0, 1)
    return np.asarray(np.rint(signal * highest), dtype)


def save_image(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    """Write an image file, optionally converted to another mode first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def save_nifti(path: Path, array: np.ndarray, spacing_mm: Sequence[float] = (1.0, 1.0, 5.0), flips: Any = ()) -> Path:
    """Write (x, y[, z[, t]]) as NIfTI; ``flips`` are the signs of the affine's diagonal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    signs = [*flips, *(1,) * (3 - len(flips))]
    image = nibabel.Nifti1Image(array, np.diag([*np.multiply(spacing_mm, signs), 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def save_table(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> Path:
    """Write a CSV file whose first line is ``header``, letter by letter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(header + "\n")
        csv.writer(stream, lineterminator="\n").writerows(rows)
    return path
