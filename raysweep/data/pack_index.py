"""The index of a pack: one row a slice, read into memory, columns of either version of the format."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import ADDED_IN_2, COLUMNS

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PackIndex:
    """One row a slice, in read-only columns of N rows; rows never change once a pack is written."""

    bucket: Array
    """Bucket code, int."""
    position: Array
    """Position inside the bucket, int64."""
    mask_position: Array
    """Position among the masks of the same height and width, int64; -1 where the slice has no mask."""
    subject: Array
    """Who the slice belongs to, str; all slices of a subject are in one split."""
    volume: Array
    """The 3-D image (or the single 2-D image) the slice belongs to, str, unique within the pack."""
    frame: Array
    """Time point, numbered as the data set numbers it, int; -1 where there is no time."""
    slice_number: Array
    """Position along the through-plane axis, counted from 0, int."""
    split: Array
    """'train', 'val' or 'test', str."""
    annotated: Array
    """Whether the slice has a ground truth, bool."""
    spacing_mm: Array
    """(N, 2) float32, distance of rows and of columns in mm; NaN if unknown."""
    intensity_low: Array
    """0.5 percentile of the slice's 3-D image at its time point, float32, in stored units."""
    intensity_high: Array
    """99.5 percentile of the same; larger than intensity_low unless the image is constant."""
    labels: Array
    """(N, L) float32 label vectors: 1 and 0, or -1 where the annotator was unsure, NaN where a label is unknown."""
    channel_low: Array
    """(N, C) float32, the 0.5 percentile of each channel; equal to intensity_low where channels share a scale."""
    channel_high: Array
    """(N, C) float32, the 99.5 percentiles of the same."""
    content: Array
    """(N, 2) uint64, a hash of each image, zeros for constant ones; (N, 0) in packs of version 1."""


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset that lies inside this very file: a link could lead to another file of the reader's."""
    group, _, leaf = name.partition("/")
    if not isinstance(file[group].get(leaf, getlink=True), h5py.HardLink):
        raise ValueError(f"/{name} is a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.id.get_create_plist().get_external_count():
        raise ValueError(f"/{name} is not a dataset inside the file")
    return dataset


def map_dataset(file: h5py.File, name: str, dtype: np.dtype[Any], pixels: Array) -> Array:
    """Return a contiguous dataset of ``file`` as a view on ``pixels``, the file's mapped bytes.

    Raises:
        ValueError: if it is not one, or ends behind the file.
    """
    dataset = _dataset(file, name)
    offset = dataset.id.get_offset()
    if offset is None or dataset.dtype != dtype:
        raise ValueError(f"/{name} is not a contiguous dataset of {dtype}")
    if offset + dataset.nbytes > len(pixels):
        raise ValueError(f"/{name} ends at byte {offset + dataset.nbytes}, the file at byte {len(pixels)}")
    mapped: Array = pixels[offset : offset + dataset.nbytes].view(dtype).reshape(dataset.shape)
    return mapped


def read_index(file: h5py.File) -> PackIndex:
    """Read all columns.

    Raises:
        ValueError: if one has another type, number of dimensions or length than the others.
    """
    columns: dict[str, Array] = {}
    is_old = not any(name in file["index"] for name in ADDED_IN_2)
    for name, (kind, num_dimensions) in COLUMNS.items():
        if is_old and name in ADDED_IN_2:
            columns[name] = _column_before_2(name, columns)
            continue
        dataset = _dataset(file, f"index/{name}")
        if dataset.dtype.kind != kind or dataset.ndim != num_dimensions:
            raise ValueError(f"/index/{name} holds {dataset.dtype} in {dataset.ndim} dimensions")
        values = dataset[...]
        if kind == "S":
            values = _decode(values)
        columns[name] = values.astype(bool) if name == "annotated" else values
        columns[name].setflags(write=False)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"its index columns have different lengths: {sorted(lengths)}")
    return PackIndex(**{field.name: columns[field.name] for field in fields(PackIndex)})


def _column_before_2(name: str, columns: dict[str, Array]) -> Array:
    """Return what a column of version 2 would hold in a pack of version 1; one value serves all channels."""
    if name == "content":
        return np.empty((len(columns["bucket"]), 0), np.uint64)
    values: Array = columns[name.replace("channel", "intensity")][:, None]
    return values


def _decode(values: Array) -> Array:
    try:
        return values.astype(np.str_)  # ASCII only, many times faster
    except UnicodeDecodeError:
        return np.char.decode(values, "utf-8")
