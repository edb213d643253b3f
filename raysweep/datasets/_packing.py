"""From a data set's files to a pack: what every packer shares.

A packer surveys its files by their headers and announces their slices as readings. Processes then carry out the
readings and store the slices at their places in the pack; places are fixed before, so the pack does not depend on the
number of processes. A killed packing continues with the slices that are missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raysweep import registry
from raysweep.data.pack_slices import PackHeader
from raysweep.data.pack_writer import PackWriter
from raysweep.data.slice_facts import store_slices
from raysweep.datasets._pool import choose_workers, ordered_map
from raysweep.datasets._survey import Array, FileName, Reading, Scan, Survey
from raysweep.errors import PackError, did_you_mean
from raysweep.settings import Settings

Progress = Callable[[int, int], None]

_MIN_POOL_BYTES = 256 << 20  # of pixels; below, starting processes takes longer than reading
_TASK_BYTES = 16 << 20  # of pixels that one task stores; small files are read many at a time
_MIN_SCAN = 2000  # files; below, starting processes takes longer than reading their headers
_SCAN_STEP = 200
_READING_FACTOR = 4  # memory that reading takes, in multiples of the pixels: decoded, sorted for percentiles, copied


def pack_survey(
    out: Path, header: PackHeader, survey: Survey, *, workers: int | None = None, progress: Progress | None = None
) -> None:
    """Carry out the readings of a survey and write their slices as one pack.

    Args:
        out: Path of the pack.
        header: What the pack says about itself.
        survey: Its readings and class names.
        workers: Processes that read; None chooses by the amount of pixels, the CPU cores and the memory to use.
        progress: Called with (slices stored, slices in all).

    Raises:
        PackError: if a file cannot be packed, or another process is writing the same pack.
    """
    slices = [one for reading in survey.readings for one in reading.slices]
    total_bytes = sum(one.bucket.num_bytes for one in slices)
    largest = max((_memory_of(reading) for reading in survey.readings), default=0)
    chosen = choose_workers(workers, max(largest, _TASK_BYTES))
    if workers is None and total_bytes < _MIN_POOL_BYTES:
        chosen = 1
    with PackWriter(out, header, slices, _key(survey.readings)) as writer:
        tasks = list(_tasks(writer, survey.readings))
        done = len(slices) - sum(stop - start for start, stop, _ in tasks)
        store = partial(_store_readings, writer.path, header.mask_encoding)
        arguments = _Arguments(writer, tasks)
        for (start, stop, _), facts in zip(tasks, ordered_map(store, arguments, chosen), strict=True):
            writer.add(start, facts)
            done += stop - start
            if progress is not None:
                progress(done, len(slices))
        names = survey.class_names
        writer.finish(names if callable(names) else lambda _: names)


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
        progress: Called with (slices stored, slices in all).

    Raises:
        StudyError: if no data set has this name.
        PackError: if an option is wrong or the files cannot be packed.
    """
    module = registry.load("datasets", dataset)
    parsed = options_of(module, dataset, options or {})
    if source is None:
        if not hasattr(module, "generate"):
            raise PackError(f"the data set {dataset!r} does not generate itself: name the folder that holds its files")
        with tempfile.TemporaryDirectory(prefix="raysweep-") as folder:
            return build_pack(dataset, Path(folder), out, options, workers=workers, progress=progress)
    source = Path(source)
    if hasattr(module, "generate"):
        generate_if_empty(source, lambda folder: module.generate(folder, parsed))
    survey: Survey = module.survey(existing_folder(source), parsed, scanner(workers))
    header = PackHeader(
        dataset=dataset,
        recipe=module.RECIPE,
        options=parsed.model_dump(mode="json"),
        label_names=survey.label_names,
        label_kind=survey.label_kind,
        label_scopes=survey.scopes,
        mask_encoding=survey.mask_encoding,
        ignore_label=survey.ignore_label,
        split_rule=survey.split_rule,
    )
    pack_survey(Path(out), header, survey, workers=workers, progress=progress)
    return Path(out)


def scanner(workers: int | None = None) -> Scan:
    """Return what surveys look at many files with: this process for few files, all cores for many."""

    def scan(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        chosen = choose_workers(workers, 0) if len(arguments) >= _MIN_SCAN else 1
        steps = [(function, arguments[first : first + _SCAN_STEP]) for first in range(0, len(arguments), _SCAN_STEP)]
        return [one for step in ordered_map(_scan_step, steps, chosen) for one in step]

    return scan


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
    with tempfile.TemporaryDirectory(prefix=".generating-", dir=source.parent) as partial_:
        files = Path(partial_) / "files"
        files.mkdir()
        generate(files)
        files.replace(source)


Task = tuple[int, int, list[Reading]]
"""First row, row behind the last, and the readings of the rows between."""


def _tasks(writer: PackWriter, readings: Sequence[Reading]) -> Iterator[Task]:
    """Yield what is still to be stored, consecutive small readings together."""
    is_stored = writer.is_stored()
    start, row, size, gathered = 0, 0, 0, list[Reading]()
    for reading in readings:
        end = row + len(reading.slices)
        if is_stored[row:end].all():
            if gathered:
                yield start, row, gathered
            start, size, gathered = end, 0, []
        else:
            gathered.append(reading)
            size += sum(one.bucket.num_bytes for one in reading.slices)
            if size >= _TASK_BYTES:
                yield start, end, gathered
                start, size, gathered = end, 0, []
        row = end
    if gathered:
        yield start, row, gathered


class _Arguments(Sequence[tuple[Any, ...]]):
    """The arguments of each task, with the places of its rows, made when they are needed."""

    def __init__(self, writer: PackWriter, tasks: Sequence[Task]) -> None:
        self._writer, self._tasks = writer, tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, number: Any) -> Any:
        start, stop, readings = self._tasks[number]
        return readings, self._writer.slots(start, stop)


def _store_readings(path: Path, mask_encoding: str, readings: list[Reading], slots: Any) -> Array:
    slices = [one for reading in readings for one in reading.slices]
    pixels = (one for reading in readings for one in reading.read(*reading.arguments))
    return store_slices(path, slices, slots, pixels, mask_encoding)


def _scan_step(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [function(*one) for one in arguments]


def _memory_of(reading: Reading) -> int:
    return reading.memory_bytes or _READING_FACTOR * sum(one.bucket.num_bytes for one in reading.slices)


def _key(readings: Sequence[Reading]) -> str:
    """Return what stands for the files and functions that the pixels come from."""
    hashed = hashlib.sha256()
    for reading in readings:
        hashed.update(_stable((reading.read, reading.arguments)).encode())
    return hashed.hexdigest()


def _stable(value: Any) -> str:
    """Return a text that is the same in every process, of files with their sizes and times."""
    if isinstance(value, tuple | list):
        return f"({','.join(map(_stable, value))})"
    if isinstance(value, Path | FileName):
        facts = os.stat(value)  # noqa: PTH116 (making a Path takes longer than the call)
        return f"{value}:{facts.st_size}:{facts.st_mtime_ns}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _stable([getattr(value, field.name) for field in dataclasses.fields(value)])
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)
