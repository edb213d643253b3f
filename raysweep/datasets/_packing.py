"""From a data set's files to a pack: what every packer shares.

A packer looks at headers only and announces its slices as readings, one a file. Readings are then carried out
by a pool of processes, a few ahead of the writer and in order: memory stays bounded, and the pack does not
depend on the number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from raysweep import registry
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels, write_pack
from raysweep.errors import PackError, did_you_mean
from raysweep.settings import Settings

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

INTENSITY_PERCENTILES = (0.5, 99.5)
_MAX_WORKERS = 8
_MIN_POOL_BYTES = 256 << 20  # of pixels; below, starting processes takes longer than reading
_READINGS_AHEAD_PER_WORKER = 2


@dataclass(frozen=True)
class Reading:
    """One unit of reading: ``read(*arguments)`` returns the pixels of ``slices``, in their order.

    ``read`` is a module's own function and ``arguments`` are small values, both go to other processes.
    """

    read: Callable[..., list[SlicePixels]]
    arguments: tuple[Any, ...]
    slices: tuple[SliceHeader, ...]


def pack_readings(
    out: Path,
    header: PackHeader,
    readings: Sequence[Reading],
    *,
    name_classes: Callable[[tuple[int, ...]], tuple[str, ...]],
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Carry out the readings and write their slices as one pack.

    Args:
        out: Path of the pack.
        header: What the pack says about itself.
        readings: All readings, in the order of the pack's rows.
        name_classes: Given the labels that occur in the masks, returns the class names, background first.
        workers: Processes that read; None chooses by the amount of pixels and the CPU cores.
        progress: Called with (slices written, slices in all).

    Raises:
        PackError: if a file cannot be packed.
    """
    slices = [one for reading in readings for one in reading.slices]
    if workers is not None and workers < 1:
        raise PackError(f"workers is {workers}; it must be at least 1")
    if workers is None:
        small = sum(one.bucket.num_bytes for one in slices) < _MIN_POOL_BYTES
        workers = 1 if small else min(_MAX_WORKERS, len(os.sched_getaffinity(0)))
    read = _read_here(readings) if workers == 1 else _read_in_pool(readings, workers)
    pixels = chain.from_iterable(read)
    write_pack(out, header, slices, _report(pixels, len(slices), progress), name_classes)


def intensity_range(image: Array) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentiles of an image, or its extremes where those coincide."""
    low, high = np.percentile(image, INTENSITY_PERCENTILES).astype(np.float32)
    if not high > low:
        low, high = np.float32(image.min()), np.float32(image.max())
    return float(low), float(high)


def options_of(module: Any, dataset: str, options: Mapping[str, Any]) -> Settings:
    """Validate the options of a data set's packer.

    Raises:
        PackError: naming all wrong options at once, each with its value and what is allowed.
    """
    try:
        parsed: Settings = module.Options.model_validate(dict(options))
    except ValidationError as error:
        allowed = list(module.Options.model_fields)
        lines = []
        for one in error.errors():
            key = ".".join(map(str, one["loc"]))
            if one["type"] == "extra_forbidden":
                known = ", ".join(allowed) or "none"
                lines.append(f"{key}: unknown option.{did_you_mean(key, allowed)} Allowed: {known}.")
            else:
                lines.append(f"{key}: {one['msg']} (found {one['input']!r})")
        raise PackError(f"options of the data set {dataset!r}:\n  " + "\n  ".join(lines)) from None
    return parsed


def build_pack(
    dataset: str,
    source: Path | None,
    out: Path,
    options: Mapping[str, Any] | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Pack a registered data set and return the pack's path.

    Args:
        dataset: Registered name, such as 'acdc'.
        source: Folder of the data set's files; None for a data set that generates itself, into
            a temporary folder.
        out: Path of the pack; an existing file is replaced once the new one is whole.
        options: Options of this data set's packer.
        workers: Processes that read.
        progress: Called with (slices written, slices in all).

    Raises:
        StudyError: if no data set has this name.
        PackError: if an option is wrong or the files cannot be packed.
    """
    module = registry.load("datasets", dataset)
    parsed = options_of(module, dataset, options or {})
    if source is not None:
        module.pack(Path(source), Path(out), parsed, workers=workers, progress=progress)
        return Path(out)
    if not hasattr(module, "generate"):
        raise PackError(f"the data set {dataset!r} does not generate itself: name the folder that holds its files")
    with tempfile.TemporaryDirectory(prefix="raysweep-") as folder:
        module.pack(Path(folder), Path(out), parsed, workers=workers, progress=progress)
    return Path(out)


def existing_folder(source: Path) -> Path:
    """Return ``source`` if it is a folder.

    Raises:
        PackError: if it is not.
    """
    if not source.is_dir():
        raise PackError(f"{source} is not a folder: name the folder that holds the data set's files")
    return source


def generate_if_empty(source: Path, generate: Callable[[Path], None]) -> None:
    """Let ``generate`` write a data set's files into ``source`` if that folder is absent or empty.

    The folder gets its name only when all files are there, so that half a set is not taken for whole.
    """
    if source.exists() and not (source.is_dir() and next(source.iterdir(), None) is None):
        return
    source.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".generating-", dir=source.parent) as partial:
        files = Path(partial) / "files"
        files.mkdir()
        generate(files)
        files.replace(source)


def _report(pixels: Iterator[SlicePixels], total: int, progress: Progress | None) -> Iterator[SlicePixels]:
    for done, one in enumerate(pixels, start=1):
        yield one
        if progress is not None:
            progress(done, total)


def _carry_out(reading: Reading) -> list[SlicePixels]:
    return reading.read(*reading.arguments)


def _read_here(readings: Sequence[Reading]) -> Iterator[list[SlicePixels]]:
    return map(_carry_out, readings)


def _read_in_pool(readings: Sequence[Reading], workers: int) -> Iterator[list[SlicePixels]]:
    # Spawned, not forked: the caller may hold threads (Ray, torch) that a fork would break.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    ahead: deque[Future[list[SlicePixels]]] = deque()
    try:
        for reading in readings:
            ahead.append(pool.submit(_carry_out, reading))
            if len(ahead) > workers * _READINGS_AHEAD_PER_WORKER:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise PackError(
            "a reading process died: out of memory, or the calling script does not guard its own code with "
            "`if __name__ == '__main__':`. Use fewer workers; workers=1 reads without processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when its parent is gone, which a killed parent could no longer ask for."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
