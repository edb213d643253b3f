"""DICOM series: files in the order of their places, read one at a time, as they are or through display windows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from raysweep.data.pack_format import Bucket
from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets._dicom import DicomHeader, read_frames
from raysweep.datasets._percentiles import streamed_range
from raysweep.datasets._survey import Reading
from raysweep.errors import PackError

Array = npt.NDArray[Any]
Window = tuple[float, Annotated[float, Field(gt=0)]]
"""Centre and width, in the image's units."""
Labels = Callable[[DicomHeader], tuple[float, ...]]

_BRIGHTEST = 255.0


def group_series(headers: Sequence[DicomHeader]) -> dict[str, list[DicomHeader]]:
    """Return volume -> its files: a series of single slices is one, a file of several frames one of its own.

    Files are in the order of their places, else of their instance numbers.

    Raises:
        PackError: if two files hold the same image.
    """
    volumes: dict[str, list[DicomHeader]] = {}
    seen: dict[str, Path] = {}
    for one in headers:
        if one.instance and one.instance in seen:
            raise PackError(f"{one.path} and {seen[one.instance]} hold the same image, {one.instance}: remove one")
        seen[one.instance] = one.path
        volumes.setdefault(one.series if one.num_frames == 1 else one.instance, []).append(one)
    return {name: _ordered(volumes[name]) for name in sorted(volumes)}


def series_reading(
    files: Sequence[DicomHeader],
    *,
    volume: str,
    subject: str,
    split: str,
    labels: Labels,
    windows: tuple[Window, ...] | None = None,
) -> Reading:
    """Return the reading of one volume.

    Args:
        files: Its files, in order.
        volume: Its name.
        subject: Whose it is.
        split: Where it belongs.
        labels: Label vector of the slices of a file.
        windows: One 8-bit channel each, which loses what lies outside of them; None keeps the values as they are.
    """
    slices, number = [], 0
    shared: dict[Any, Any] = {}  # equal values once: the largest sets have millions of slices
    for one in files:
        vector = shared.setdefault(labels(one), labels(one))
        bucket = one.bucket
        if windows is not None:
            if bucket.channels != 1:
                raise PackError(f"{one.path} is a colour image: windows are for grey ones; leave the option out")
            bucket = Bucket(len(windows), bucket.height, bucket.width, "uint8")
        for frame in range(one.num_frames):
            is_cine = one.num_frames > 1 and one.has_time
            slices.append(
                SliceHeader(
                    bucket=shared.setdefault(bucket, bucket),
                    subject=subject,
                    volume=volume,
                    split=split,
                    has_mask=False,
                    annotated=any(not math.isnan(value) for value in vector),
                    frame=frame + 1 if is_cine else -1,
                    slice_number=0 if is_cine else number,
                    spacing_mm=shared.setdefault(one.spacing_mm, one.spacing_mm),
                    labels=vector,
                )
            )
            number += 1
    folder = Path(os.path.commonpath([one.path.parent for one in files]))
    names = tuple(one.path.relative_to(folder).as_posix() for one in files)
    largest = max(one.num_frames * one.bucket.num_bytes for one in files)
    return Reading(_read, (folder, names, windows), tuple(slices), memory_bytes=6 * largest)


def windowed(values: Array, windows: Sequence[Window]) -> npt.NDArray[np.uint8]:
    """Return one 8-bit channel for each window, (K, H, W), of an image (H, W): black below, white above it."""
    channels = [(values - (centre - width / 2)) / width for centre, width in windows]
    return np.asarray(np.rint(np.clip(np.stack(channels), 0, 1) * _BRIGHTEST), np.uint8)


def patients_of(headers: Mapping[str, Sequence[DicomHeader]]) -> dict[str, str]:
    """Return volume -> patient; where the files name no patient its study, else its series stands for one.

    Raises:
        PackError: if the files of one volume name several.
    """
    found = {}
    for volume, files in headers.items():
        names = {one.patient or one.study or one.series for one in files}
        if len(names) != 1:
            raise PackError(
                f"the files of {volume} ({files[0].path}, ...) name the patients {sorted(names)}: correct them"
            )
        found[volume] = names.pop()
    return found


def _ordered(files: list[DicomHeader]) -> list[DicomHeader]:
    known = all(math.isfinite(one.place_mm) for one in files)
    return sorted(files, key=lambda one: (one.place_mm if known else 0.0, one.instance_number, one.path.name))


def _read(folder: Path, names: tuple[str, ...], windows: tuple[Window, ...] | None) -> Iterator[SlicePixels]:
    paths = [folder / name for name in names]
    if windows is not None:
        for path in paths:
            for frame in read_frames(path):
                yield SlicePixels(windowed(frame[0], windows), None, 0.0, _BRIGHTEST)
        return
    low, high = streamed_range(lambda: map(read_frames, paths))
    for path in paths:
        for frame in read_frames(path):
            yield SlicePixels(frame, None, low, high)
