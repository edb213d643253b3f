"""Small packs written straight through the writer, for tests of the format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raysweep.data.pack_format import Bucket
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels, write_pack

SPLITS = ("train", "train", "val", "test")


def slices_of(num_slices: int = 8) -> tuple[list[SliceHeader], list[SlicePixels]]:
    """Two buckets in turn; every second slice has a mask; subject s(n) has the slices 2n and 2n + 1."""
    rng = np.random.default_rng(0)
    headers, pixels = [], []
    for number in range(num_slices):
        height, width, dtype = ((8, 6, "int16"), (9, 6, "float32"))[number % 2]
        has_mask = number % 2 == 0
        subject = number // 2
        headers.append(
            SliceHeader(
                bucket=Bucket(1, height, width, dtype),
                subject=f"s{subject}",
                volume=f"volume{number}",
                split=SPLITS[subject % len(SPLITS)],
                has_mask=has_mask,
                annotated=has_mask,
                frame=number,
                slice_number=number % 3,
                spacing_mm=(1.5, 1.25),
                labels=(float(subject % 2), np.nan),
            )
        )
        image = rng.integers(-5, 900, (height, width)).astype(dtype)
        mask = rng.integers(0, 3, (height, width)).astype(np.uint8) if has_mask else None
        pixels.append(SlicePixels(image, mask, float(image.min()), float(image.max())))
    return headers, pixels


def write_small_pack(out: Path, num_slices: int = 8) -> list[SlicePixels]:
    headers, pixels = slices_of(num_slices)
    write_pack(out, HEADER, headers, pixels, lambda labels: tuple(f"class{label}" for label in labels))
    return pixels


HEADER = PackHeader("small", 3, {"option": [1, 2]}, ("ill", "old"))
