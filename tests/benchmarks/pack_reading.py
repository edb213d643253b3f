"""Reading random batches of slices."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Lambda, ToTensor

from raysweep.data.pack import open_pack
from raysweep.data.pack_format import Bucket
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels, write_pack
from raysweep.data.slices import scaled_slices
from tests.benchmarks.measurement import Measurement, alternate

DESCRIPTION = (
    "Random slices from a pack to a scaled float batch: against h5py, a DataLoader with PIL, and copying memory."
)

_SIDE_PX = 256
_BATCH = 64

BatchReader = Callable[[np.ndarray], object]
"""Takes the rows of a batch."""


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
    rates = {way: num_batches * _BATCH / value for way, value in seconds.items()}
    rows = [
        {"output": way.output, "way": way.name, "slices/s per core": rate, "pack is faster by": rates[way.ours] / rate}
        for way, rate in rates.items()
    ]
    faster = {way: rates[way.ours] / rate for way, rate in rates.items()}
    return Measurement(
        rows,
        f"Reading alone, a pack is {faster[_Way('pixels', _SINGLE)]:.1f} times as fast as h5py slice by slice and "
        f"{faster[_Way('pixels', _FANCY)]:.1f} times as fast as h5py's fancy index on the same contiguous dataset, "
        f"and {faster[_Way('pixels', _GZIP)]:.0f} times as fast as slice by slice from automatic gzip chunks. With "
        f"conversion to a scaled float batch these are {faster[_Way('batch', _SINGLE)]:.1f}, "
        f"{faster[_Way('batch', _FANCY)]:.1f} and {faster[_Way('batch', _GZIP)]:.0f}, and "
        f"{faster[_Way('batch', _PIL)]:.1f} against a DataLoader with PIL: the conversion takes most of the time then, "
        "for which slices of one shape are taken as one array. A copy within memory is the bound: reading reaches "
        f"{100 * faster[_Way('pixels', _COPY)]:.0f} % of its rate for pixels, "
        f"{100 * faster[_Way('batch', _COPY)]:.0f} % with conversion.",
        {
            "slices": f"{num_slices} of {_SIDE_PX} x {_SIDE_PX} uint16 pixels, in the page cache",
            "batches": f"{num_batches} of {_BATCH} random slices, sorted as h5py's fancy index needs them",
            "pixels": "the stored uint16 values, copied to memory; within memory into one array that is used again",
            "batch": "one (64, 1, 256, 256) float32 tensor, scaled to the volume's percentiles",
            "repetitions": f"{repetitions} in turn, median, CPU seconds of one process with one thread",
        },
    )


_PACK = "pack"
_SINGLE = "h5py, slice by slice, contiguous"
_FANCY = "h5py, fancy index, contiguous"
_GZIP = "h5py, slice by slice, automatic gzip chunks"
_PIL = "DataLoader in this process, h5py slice by slice, PIL image to tensor"
_COPY = "copy within memory"


class _Images(Dataset[Tensor]):
    """What a script with torchvision does: a slice becomes an 8-bit image, and that a tensor of [0, 1]."""

    def __init__(self, dataset: h5py.Dataset, rows: np.ndarray, high: float) -> None:
        self._dataset, self._rows, self._high = dataset, rows, high
        self._to_tensor = Compose([Lambda(self._as_image), ToTensor()])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Tensor:
        return self._to_tensor(self._dataset[self._rows[index]])

    def _as_image(self, values: np.ndarray) -> Image.Image:
        return Image.fromarray((np.clip(values / self._high, 0, 1) * 255).astype(np.uint8))


@dataclass(frozen=True)
class _Way:
    output: str
    name: str

    @property
    def ours(self) -> _Way:
        return _Way(self.output, _PACK)


def _measure(
    path: Path, dataset: h5py.Dataset, compressed: h5py.Dataset, memory: np.ndarray, num_batches: int, repetitions: int
) -> dict[_Way, float]:
    torch.set_num_threads(1)
    pack = open_pack(path)
    rng = np.random.default_rng(0)
    batches = [np.sort(rng.choice(len(pack), _BATCH, replace=False)) for _ in range(num_batches)]
    low, high = float(pack.index.intensity_low[0]), float(pack.index.intensity_high[0])

    destination = np.empty((_BATCH, _SIDE_PX, _SIDE_PX), memory.dtype)

    def scaled(values: np.ndarray) -> Tensor:
        converted = values.astype(np.float32)
        converted -= low
        converted /= high - low
        return torch.from_numpy(converted)

    def pixels(read: Callable[[int], np.ndarray]) -> BatchReader:
        return lambda rows: np.stack([read(row) for row in rows])

    def tensors(read: Callable[[int], Tensor]) -> BatchReader:
        return lambda rows: torch.stack([read(row) for row in rows])

    def copy(rows: np.ndarray) -> None:
        for position, row in enumerate(rows):
            destination[position] = memory[row]

    readers: dict[_Way, BatchReader] = {
        _Way("pixels", _PACK): pixels(pack.image),
        _Way("pixels", _SINGLE): pixels(lambda row: dataset[row]),
        _Way("pixels", _FANCY): lambda rows: dataset[rows],
        _Way("pixels", _GZIP): pixels(lambda row: compressed[row]),
        _Way("pixels", _COPY): copy,
        _Way("batch", _PACK): lambda rows: scaled_slices(pack, rows),
        _Way("batch", _SINGLE): tensors(lambda row: scaled(dataset[row])[None]),
        _Way("batch", _FANCY): lambda rows: scaled(dataset[rows])[:, None],
        _Way("batch", _GZIP): tensors(lambda row: scaled(compressed[row])[None]),
        _Way("batch", _PIL): lambda rows: list(DataLoader(_Images(dataset, rows, high), batch_size=len(rows))),
        _Way("batch", _COPY): lambda rows: scaled(memory[rows])[:, None],
    }

    def each_batch(read: BatchReader) -> None:
        for rows in batches:
            read(rows)  # and let go of it, as training does

    variants = {way: partial(each_batch, read) for way, read in readers.items()}
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
