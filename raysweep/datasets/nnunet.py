"""nnU-Net's raw format: dataset.json, imagesTr, labelsTr, and a test set if there is one; NIfTI or 2D images.

Files::

    dataset.json                       channel_names, labels, file_ending (or modality and labels of the first version)
    imagesTr/heart_001_0000.nii.gz     _0000, _0001, ...: one file a channel
    labelsTr/heart_001.nii.gz
    imagesTs/...  labelsTs/...         the test split, where labelsTs is there

3D files become slices of the plane that the option names. Labels that are lists (regions) overlap and become bits; the
label ``ignore`` becomes 255. Channels are scaled one by one. 2D files (.png, .tif, ...) are images of one channel, or
one RGB file.

Source: Isensee et al., nnU-Net, Nature Methods 2021; the format is described in its documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from raysweep.data.pack_format import IGNORE_LABEL, MAX_BITS, Bucket
from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets import _rasters
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule
from raysweep.datasets._subjects import find_subject, subject_expression
from raysweep.datasets._survey import About, Reading, Scan, Survey, intensity_range
from raysweep.datasets._tables import read_text
from raysweep.datasets._volumes import Plane, read_volume_header, volume_reading
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="your own 2D or 3D images with masks, one or several channels",
    access="yours; also the Medical Segmentation Decathlon and whatever else is laid out for nnU-Net",
    layout="`dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, and `imagesTs/`, `labelsTs/`",
    splits="`labelsTs` is the test split; what is missing is drawn by subject",
)

_CHANNEL = re.compile(r"(.+)_(\d{4})")


class Options(DrawnSplits):
    """Options of the nnU-Net packer."""

    plane: Plane = "stored"
    """Plane of the slices of 3D files: stored, axial, coronal, sagittal."""
    subject: str | None = None
    """Regular expression with one group that finds the subject in a case's name; None: every case is its own."""

    _one_group = field_validator("subject")(subject_expression)


@dataclass(frozen=True)
class _Labels:
    """What the numbers in label files mean: number -> what is packed, and the classes' names."""

    table: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    is_bits: bool
    has_ignore: bool


@dataclass(frozen=True)
class _Case:
    name: str
    channels: tuple[Path, ...]
    mask: Path | None
    subject: str
    part: str


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at dataset.json and the headers.

    Raises:
        PackError: if files are missing or contradict dataset.json or each other.
    """
    settings = _settings(source / "dataset.json")
    labels = _labels_of(source, settings)
    ending = settings.get("file_ending", ".nii.gz")
    num_channels = len(settings.get("channel_names", settings.get("modality", ())))
    cases = [case for part in ("Tr", "Ts") for case in _cases(source, part, ending, num_channels, options)]
    if not cases:
        raise PackError(f"{source / 'imagesTr'} holds no image CASE_0000{ending}")
    has_test = any(case.part == "Ts" and case.mask is not None for case in cases)
    labelled = {case.subject: 0 for case in cases if case.mask is not None and case.part == "Tr"}
    split_of = draw_splits(
        labelled,
        val_fraction=options.val_fraction,
        test_fraction=0.0 if has_test else options.test_fraction,
        seed=options.seed,
    )
    # Test images without masks could only be trained on; that is not what they are for.
    kept = [case for case in cases if case.part == "Tr" or case.mask is not None]
    read = _volume if ending.startswith(".nii") else _image
    arguments = [
        (case, "test" if case.part == "Ts" else split_of.get(case.subject, "train"), options.plane, labels)
        for case in kept
    ]
    return Survey(
        scan(read, arguments),
        class_names=labels.names,
        mask_encoding="bits" if labels.is_bits else "index",
        ignore_label=IGNORE_LABEL if labels.has_ignore else None,
        split_rule=rule(options, "by subject", "labelsTs is test" if has_test else ""),
    )


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise PackError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("labels"), dict):
        raise PackError(f"{path} has no labels, such as {{'background': 0, 'lesion': 1}}")
    if not found.get("channel_names") and not found.get("modality"):
        raise PackError(f"{path} has neither channel_names nor modality, such as {{'0': 'T2'}}")
    return found


def _labels_of(source: Path, settings: dict[str, Any]) -> _Labels:
    path = source / "dataset.json"
    stated = settings["labels"]
    if all(str(key).isdigit() for key in stated):  # the first version: number -> name
        stated = {name: int(number) for number, name in stated.items()}
    numbers_of = {name: _numbers(path, name, value) for name, value in stated.items() if name != "background"}
    ignore = numbers_of.pop("ignore", [])
    is_bits = any(len(numbers) > 1 for numbers in numbers_of.values())
    if is_bits and len(numbers_of) > MAX_BITS:
        raise PackError(f"{path} has {len(numbers_of)} regions that overlap; a pack holds {MAX_BITS}")
    table = {0: 0, **dict.fromkeys(ignore, IGNORE_LABEL)}
    for code, numbers in enumerate(numbers_of.values()):
        for number in numbers:
            table[number] = table.get(number, 0) | 1 << code if is_bits else code + 1
    return _Labels(tuple(sorted(table.items())), ("background", *numbers_of), is_bits, bool(ignore))


def _numbers(path: Path, name: str, value: Any) -> list[int]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise PackError(f"{path} gives the label {name!r} the value {value!r}; allowed are a number or a list of them")
    return numbers


def _cases(source: Path, part: str, ending: str, num_channels: int, options: Options) -> Iterator[_Case]:
    folder, labels = source / f"images{part}", source / f"labels{part}"
    if not folder.is_dir():
        if part == "Tr":
            raise PackError(f"{folder} does not exist; training images lie there")
        return
    channels: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _CHANNEL.fullmatch(path.name.removesuffix(ending)) if path.name.endswith(ending) else None
        if match is not None:
            channels.setdefault(match.group(1), {})[int(match.group(2))] = path
    is_rgb = ending != ".nii.gz" and num_channels == 3 and all(set(one) == {0} for one in channels.values())
    for name, files in channels.items():
        wanted = {0} if is_rgb else set(range(num_channels))
        if set(files) != wanted:
            raise PackError(f"{folder} has the channels {sorted(files)} of {name}; dataset.json names {num_channels}")
        mask = labels / f"{name}{ending}"
        subject = find_subject(name, options.subject, files[0])
        yield _Case(
            name, tuple(files[number] for number in sorted(files)), mask if mask.is_file() else None, subject, part
        )
    alone = [path for path in sorted(labels.glob(f"*{ending}")) if path.name.removesuffix(ending) not in channels]
    if alone:
        raise PackError(f"{alone[0]} has no image in {folder} ({len(alone)} such masks)")


def _volume(case: _Case, split: str, plane: Plane, labels: _Labels) -> Reading:
    return volume_reading(
        [read_volume_header(path, plane) for path in case.channels],
        None if case.mask is None else read_volume_header(case.mask, plane),
        translate_table,
        (labels.table,),
        subject=case.subject,
        volume=case.name,
        split=split,
    )


def _image(case: _Case, split: str, plane: Plane, labels: _Labels) -> Reading:
    buckets = [_rasters.read_header(path) for path in case.channels]
    first = buckets[0]
    if len(set(buckets)) > 1 or (len(buckets) > 1 and first.channels > 1):
        raise PackError(f"the channels of {case.channels[0]} differ: {[one.name for one in buckets]}")
    bucket = Bucket(first.channels * len(buckets), first.height, first.width, first.dtype)
    has_mask = case.mask is not None
    header = SliceHeader(bucket, case.subject, case.name, split, has_mask=has_mask, annotated=has_mask)
    return Reading(_read_image, (case.channels, case.mask, labels.table), (header,))


def _read_image(
    channels: tuple[Path, ...], mask: Path | None, table: tuple[tuple[int, int], ...]
) -> Iterator[SlicePixels]:
    planes = [_rasters.read_pixels(path) for path in channels]
    low, high = zip(*map(intensity_range, planes), strict=True)
    classes = None if mask is None else translate_table(mask, _rasters.read_labels(mask), table)
    image = np.concatenate(planes)
    yield SlicePixels(image, classes, low if len(low) > 1 else low[0], high if len(high) > 1 else high[0])


def translate_table(path: Path, stored: npt.NDArray[Any], table: tuple[tuple[int, int], ...]) -> npt.NDArray[np.uint8]:
    """Return what is packed for the numbers stored in a mask.

    Raises:
        PackError: if dataset.json does not name one of them.
    """
    meaning = dict(table)
    found = np.unique(stored).tolist()
    unknown = [number for number in found if number not in meaning]
    if unknown:
        raise PackError(f"{path} has the label {unknown[0]:g}; dataset.json names {', '.join(map(str, meaning))}")
    codes = np.array([meaning[number] for number in found], np.uint8)
    return codes[np.searchsorted(found, stored)]
