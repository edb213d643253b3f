"""Reading random batches of slices."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from raysweep.data.pack import open_pack
from raysweep.data.pack_format import Bucket
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels, write_pack
from raysweep.data.slices import scaled_slice
from tests.benchmarks.measurement import Measurement, alternate

DESCRIPTION = "Random slices from a pack to a scaled float batch, against h5py and against copying memory."

_SIDE_PX = 256
_BATCH = 64


def run(quick: bool = False) -> Measurement:
    """Read the same random batches in every way, in turn."""
    num_slices, num_batches, repetitions = (128, 2, 2) if quick else (1024, 8, 9)
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder) / "slices.h5", num_slices)
        automatic = Path(folder) / "chunked.h5"
        with h5py.File(path, "r", locking=False) as source, h5py.File(automatic, "w") as target:
            pixels = source[f"images/{_bucket().name}"][...]
            target.create_dataset("images", data=pixels, chunks=True, compression="gzip")
        with h5py.File(path, "r", locking=False) as file, h5py.File(automatic, "r", locking=False) as compressed:
            seconds = _measure(
                path, file[f"images/{_bucket().name}"], compressed["images"], pixels, num_batches, repetitions
            )
    rates = {name: num_batches * _BATCH / value for name, value in seconds.items()}
    ours = rates[_OURS]
    rows = [{"way": name, "slices/s per core": rate, "pack is faster by": ours / rate} for name, rate in rates.items()]
    return Measurement(
        rows,
        f"Out of the page cache, a pack gives scaled float slices {ours / rates[_SINGLE]:.1f} times as fast as h5py "
        f"reading the same contiguous dataset slice by slice, {ours / rates[_FANCY]:.0f} times as fast as h5py's "
        f"fancy index and {ours / rates[_GZIP]:.0f} times as fast as from automatic gzip chunks. Converting to "
        f"float32 and scaling is most of it: copying the stored pixels alone runs at {rates[_COPY] / ours:.1f} "
        "times the rate.",
        {
            "slices": f"{num_slices} of {_SIDE_PX} x {_SIDE_PX} uint16 pixels, in the page cache",
            "batches": f"{num_batches} of {_BATCH} random slices",
            "output": "one (64, 1, 256, 256) float32 batch, scaled; memory copies stay uint16",
            "repetitions": f"{repetitions} in turn, median, CPU seconds of one process with one thread",
        },
    )


_OURS = "pack: Pack.image + scaled_slice"
_SINGLE = "h5py, slice by slice, contiguous"
_FANCY = "h5py, fancy index, contiguous"
_GZIP = "h5py, slice by slice, automatic gzip chunks"
_COPY = "floor: copy of the pixels in memory"


def _measure(
    path: Path, dataset: h5py.Dataset, compressed: h5py.Dataset, memory: np.ndarray, num_batches: int, repetitions: int
) -> dict[str, float]:
    torch.set_num_threads(1)
    pack = open_pack(path)
    rng = np.random.default_rng(0)
    batches = [np.sort(rng.choice(len(pack), _BATCH, replace=False)) for _ in range(num_batches)]
    low, high = float(pack.index.intensity_low[0]), float(pack.index.intensity_high[0])
    buffer = np.empty((_SIDE_PX, _SIDE_PX), memory.dtype)

    def scaled(values: np.ndarray) -> Tensor:
        converted = values.astype(np.float32)
        converted -= low
        converted /= high - low
        return torch.from_numpy(converted)

    def from_pack() -> None:
        for rows in batches:
            torch.stack([scaled_slice(pack, row) for row in rows])

    def singly(source: h5py.Dataset) -> None:
        for rows in batches:
            torch.stack([scaled(source[row])[None] for row in rows])

    def fancy() -> None:
        for rows in batches:
            scaled(dataset[rows])[:, None]

    def copy() -> None:
        for rows in batches:
            for row in rows:
                np.copyto(buffer, memory[row])

    variants = {
        _OURS: from_pack,
        _SINGLE: lambda: singly(dataset),
        _FANCY: fancy,
        _GZIP: lambda: singly(compressed),
        _COPY: copy,
    }
    return alternate(variants, repetitions)


def _bucket() -> Bucket:
    return Bucket(1, _SIDE_PX, _SIDE_PX, "uint16")


def _write(path: Path, num_slices: int) -> Path:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:_SIDE_PX, :_SIDE_PX]
    body = np.clip(1.2 - np.hypot(y - 128, x - 128) / 100, 0, 1)
    noise = rng.integers(0, 40, (_SIDE_PX, _SIDE_PX))
    headers = [
        SliceHeader(_bucket(), f"s{n}", f"v{n}", "train", has_mask=False, annotated=False) for n in range(num_slices)
    ]
    pixels = (
        SlicePixels((np.roll(body, n, 1) * 2000 + noise * (body > 0)).astype(np.uint16), None, 0.0, 2000.0)
        for n in range(num_slices)
    )
    write_pack(path, PackHeader("benchmark", 1, {}), headers, pixels, lambda labels: ())
    return path
