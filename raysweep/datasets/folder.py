"""A folder of 2D images, with or without masks of the same names: PNG, TIFF, JPEG or BMP, grey or RGB.

Two layouts are known::

    images/x.png  masks/x.png                              splits drawn by subject, see Options
    images/{train,val,test}/x.png  masks/{train,val,test}/x.png      published splits
    img_dir/{train,val,test}/x.png  ann_dir/{train,val,test}/x.png   the same, as mmsegmentation lays them out

An image without a mask is unlabelled: it is train data, unless its subject has masks and is in another split.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from raysweep.data.pack_format import SPLITS, Bucket
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels
from raysweep.datasets import _rasters
from raysweep.datasets._labels import infer_class_names, translate_labels
from raysweep.datasets._packing import Progress, Reading, existing_folder, intensity_range, pack_readings
from raysweep.errors import PackError
from raysweep.settings import Settings

RECIPE = 1
_LAYOUTS = (("images", "masks"), ("img_dir", "ann_dir"))


class Options(Settings):
    """Options of the folder packer."""

    classes: tuple[str, ...] | None = None
    """Class names, background first; None names them by the highest label: background, class_1, ..."""
    mask_values: dict[int, int] | None = None
    """Number stored in the masks -> class index, such as {255: 1}; 0 stays 0 unless it is named."""
    subject: str | None = None
    """Regular expression with one group that finds the subject in a stem; None: every image is its own."""
    spacing_mm: tuple[float, float] | None = None
    """Distance of rows and of columns in mm, the same for all images."""
    val_fraction: float = Field(0.15, ge=0, lt=1)
    """Share of the subjects drawn into the validation split where the files name no splits."""
    test_fraction: float = Field(0.2, ge=0, lt=1)
    """Share of the subjects drawn into the test split where the files name no splits."""
    seed: int = Field(0, ge=0)
    """Seed of that draw."""

    @field_validator("subject")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"it is not a regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"it has {groups} groups; exactly one must enclose the subject, as in '(p[0-9]+)_'")
        return pattern

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and (len(set(classes)) != len(classes) or not 2 <= len(classes) <= 256):
            raise ValueError("classes must be 2 to 256 different names, the background first")
        return classes


@dataclass(frozen=True)
class _Item:
    """An image, its mask if it has one, and where they belong; ``split`` is None until it is drawn."""

    stem: str
    image: Path
    mask: Path | None
    subject: str
    split: str | None


def pack(
    source: Path,
    out: Path,
    options: Options,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Pack a folder of images.

    Raises:
        PackError: if files are missing, unreadable, ambiguous or contradict the options.
    """
    header = PackHeader("folder", RECIPE, options.model_dump(mode="json"))
    pack_folder_files(source, out, header, options, workers=workers, progress=progress)


def pack_folder_files(
    source: Path,
    out: Path,
    header: PackHeader,
    options: Options,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Pack files that lie as this data set's do, under the name and options of ``header``."""
    items = _items(existing_folder(source), options)
    split_of = _draw_splits(items, options)
    readings = [_reading(item, item.split or split_of[item.subject], options) for item in items]
    _check_channels(items, readings)

    def name_classes(labels: tuple[int, ...]) -> tuple[str, ...]:
        return options.classes or infer_class_names(source, labels)

    pack_readings(out, header, readings, name_classes=name_classes, workers=workers, progress=progress)


def write_example(folder: Path) -> Options:
    """Write a very small data set in this layout and return the options to pack it with."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(12):
        height, width = (16, 24) if number % 2 else (20, 20)
        mask = np.zeros((height, width), np.uint8)
        mask[4 : 8 + number % 5, 5:12] = 255
        image = (rng.integers(0, 100, mask.shape) + mask // 2).astype(np.uint8)
        _rasters.write_png(folder / "images" / f"s{number // 2}_{number}.png", image)
        if number < 10:
            _rasters.write_png(folder / "masks" / f"s{number // 2}_{number}.png", mask)
    return Options(mask_values={255: 1}, subject="(s[0-9]+)_", classes=("background", "square"))


def _items(source: Path, options: Options) -> list[_Item]:
    for image_folder, mask_folder in _LAYOUTS:
        images, masks = source / image_folder, source / mask_folder
        if not images.is_dir():
            continue
        folders = sorted(path.name for path in images.iterdir() if path.is_dir())
        if not folders:
            items = _match(images, masks, None, options)
        else:
            unknown = sorted(set(folders) - set(SPLITS))
            if unknown or _files(images):
                raise PackError(
                    f"{images} holds {', '.join(unknown) or 'images beside its folders'}; allowed are images "
                    f"only, or folders only, named {', '.join(SPLITS)}"
                )
            items = [
                item
                for split in SPLITS
                if split in folders
                for item in _match(images / split, masks / split, split, options)
            ]
        if not items:
            raise PackError(f"{images} holds no image; allowed are the endings {', '.join(_rasters.SUFFIXES)}")
        return items
    expected = " or ".join(f"{images}/ (masks in {masks}/)" for images, masks in _LAYOUTS)
    raise PackError(f"{source} has no folder {expected}: put the images there")


def _match(images: Path, masks: Path, split: str | None, options: Options) -> list[_Item]:
    image_of, mask_of = _files(images), _files(masks) if masks.is_dir() else {}
    alone = sorted(set(mask_of) - set(image_of))
    if alone:
        raise PackError(
            f"{mask_of[alone[0]]} has no image of the same stem in {images} ({len(alone)} such masks): "
            "name both alike or remove the mask"
        )
    lossy = [path for path in mask_of.values() if path.suffix.lower() in _rasters.LOSSY_SUFFIXES]
    if lossy:
        raise PackError(f"{lossy[0]} is a JPEG, whose compression changes labels; masks must be PNG, TIFF or BMP")
    return [
        _Item(stem, image_of[stem], mask_of.get(stem), _subject(image_of[stem], split, options), split)
        for stem in sorted(image_of)
    ]


def _files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix.lower() in _rasters.SUFFIXES:
            if path.stem in found:
                raise PackError(f"{path} and {found[path.stem].name} have the same stem: remove or rename one")
            found[path.stem] = path
    return found


def _subject(image: Path, split: str | None, options: Options) -> str:
    if options.subject is None:
        # Published splits number their files independently: train/1.png and test/1.png are two images.
        return image.stem if split is None else f"{split}/{image.stem}"
    match = re.search(options.subject, image.stem)
    if match is None or not match.group(1):
        raise PackError(
            f"the option subject, {options.subject!r}, finds no subject in the stem of {image}; "
            "correct the expression or rename the file"
        )
    return match.group(1)


def _draw_splits(items: list[_Item], options: Options) -> dict[str, str]:
    """Return subject -> split: ordered by a keyed hash, which no library's version changes."""
    if options.val_fraction + options.test_fraction >= 1:
        raise PackError(
            f"val_fraction {options.val_fraction} and test_fraction {options.test_fraction} leave nothing to "
            "train on; together they must be below 1"
        )
    split_of = {item.subject: "train" for item in items}
    labelled = {item.subject for item in items if item.mask is not None}
    order = sorted(labelled, key=lambda name: hashlib.sha256(f"{options.seed}:{name}".encode()).digest())
    num_test = _share(options.test_fraction, len(order))
    num_val = _share(options.val_fraction, len(order))
    for position, subject in enumerate(order[: num_test + num_val]):
        split_of[subject] = "test" if position < num_test else "val"
    return split_of


def _share(fraction: float, count: int) -> int:
    """Return a part of ``count``, at least one if it is wanted and three subjects are there to share out."""
    return max(round(fraction * count), int(fraction > 0 and count >= 3))


def _reading(item: _Item, split: str, options: Options) -> Reading:
    bucket = _rasters.read_header(item.image)
    annotated = item.mask is not None
    header = SliceHeader(
        bucket=bucket,
        subject=item.subject,
        volume=item.stem if item.split is None else f"{item.split}/{item.stem}",
        split=split,
        has_mask=annotated,
        annotated=annotated,
        spacing_mm=options.spacing_mm or (math.nan, math.nan),
    )
    return Reading(_read, (item.image, item.mask, bucket, options), (header,))


def _check_channels(items: list[_Item], readings: list[Reading]) -> None:
    first: dict[int, Path] = {}
    for item, reading in zip(items, readings, strict=True):
        first.setdefault(reading.slices[0].bucket.channels, item.image)
    if len(first) > 1:
        named = " and ".join(f"{path} has {count} channel{'s' * (count > 1)}" for count, path in sorted(first.items()))
        raise PackError(f"{named}: all images of a pack must be grey, or all RGB. Convert one kind.")


def _read(image: Path, mask: Path | None, bucket: Bucket, options: Options) -> list[SlicePixels]:
    pixels = _rasters.read_pixels(image)
    low, high = intensity_range(pixels)
    if mask is None:
        return [SlicePixels(pixels, None, low, high)]
    stored = _rasters.read_labels(mask)
    if stored.shape != (bucket.height, bucket.width):
        raise PackError(
            f"{mask} has {stored.shape[0]} x {stored.shape[1]} pixels, "
            f"its image {image.name} {bucket.height} x {bucket.width}"
        )
    return [SlicePixels(pixels, translate_labels(mask, stored, options.classes, options.mask_values), low, high)]
