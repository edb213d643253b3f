"""A folder of 2D images, with or without masks of the same names: PNG, TIFF, JPEG or BMP, grey or RGB.

Two layouts are known::

    images/x.png  masks/x.png                              splits drawn by subject, see Options
    images/{train,val,test}/x.png  masks/{train,val,test}/x.png      published splits
    img_dir/{train,val,test}/x.png  ann_dir/{train,val,test}/x.png   the same, as mmsegmentation lays them out

An image without a mask is unlabelled: it is train data, unless its subject has masks and is in another split.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from raysweep.data.pack_format import IGNORE_LABEL, SPLITS
from raysweep.datasets import _rasters
from raysweep.datasets._images import ImageFile, image_readings
from raysweep.datasets._labels import infer_class_names, translate_labels
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule
from raysweep.datasets._subjects import find_subject, subject_expression
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="2D images, grey or RGB: PNG, TIFF, JPEG, BMP; masks PNG, TIFF or BMP, or none",
    access="yours",
    layout="`images/x.png` and `masks/x.png`; or with `train`, `val`, `test` folders in both; or `img_dir/...` and "
    "`ann_dir/...`",
    splits="the folders `train`, `val`, `test`, else drawn by subject",
)
_LAYOUTS = (("images", "masks"), ("img_dir", "ann_dir"))


class Options(DrawnSplits):
    """Options of the folder packer."""

    classes: tuple[str, ...] | None = None
    """Class names, background first; None names them by the highest label: background, class_1, ..."""
    mask_values: dict[int, int] | None = None
    """Number stored in the masks -> class index, such as {255: 1}, or 255 to ignore; 0 stays 0 unless it is named."""
    subject: str | None = None
    """Regular expression with one group that finds the subject in a stem; None: every image is its own."""
    spacing_mm: tuple[float, float] | None = None
    """Distance of rows and of columns in mm, the same for all images."""

    _one_group = field_validator("subject")(subject_expression)

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and (len(set(classes)) != len(classes) or not 2 <= len(classes) <= 256):
            raise ValueError("classes must be 2 to 256 different names, the background first")
        return classes


@dataclass(frozen=True, slots=True)
class _Item:
    """An image, its mask if it has one, and where they belong; ``split`` is None until it is drawn."""

    stem: str
    image: Path
    mask: Path | None
    subject: str
    split: str | None


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at a folder of images.

    Raises:
        PackError: if files are missing, unreadable, ambiguous or contradict the options.
    """
    items = _items(source, options)
    published = items[0].split is not None
    labelled = {item.subject: 0 for item in items if item.mask is not None}
    drawn = (
        {}
        if published
        else draw_splits(
            labelled, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=options.seed
        )
    )
    spacing_mm = options.spacing_mm or (math.nan, math.nan)
    meaning = (options.classes, None if options.mask_values is None else tuple(options.mask_values.items()))
    images = [_image(item, item.split or drawn.get(item.subject, "train"), spacing_mm, meaning) for item in items]

    def name_classes(labels: tuple[int, ...]) -> tuple[str, ...]:
        return options.classes or infer_class_names(source, labels)

    return Survey(
        image_readings(images, scan),
        class_names=name_classes,
        ignore_label=IGNORE_LABEL if IGNORE_LABEL in (options.mask_values or {}).values() else None,
        split_rule="folders train, val, test" if published else rule(options, "by subject"),
    )


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
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file())
    for name in names:
        path = folder / name
        if path.suffix.lower() in _rasters.SUFFIXES:
            if path.stem in found:
                raise PackError(f"{path} and {found[path.stem].name} have the same stem: remove or rename one")
            found[path.stem] = path
    return found


def _subject(image: Path, split: str | None, options: Options) -> str:
    if options.subject is None:
        # Published splits number their files independently: train/1.png and test/1.png are two images.
        return image.stem if split is None else f"{split}/{image.stem}"
    return find_subject(image.stem, options.subject, image)


def _image(item: _Item, split: str, spacing_mm: tuple[float, float], meaning: tuple[Any, Any]) -> ImageFile:
    return ImageFile(
        path=item.image,
        subject=item.subject,
        split=split,
        volume=item.stem if item.split is None else f"{item.split}/{item.stem}",
        read_mask=None if item.mask is None else _read_mask,
        mask_arguments=() if item.mask is None else (item.mask, *meaning),
        spacing_mm=spacing_mm,
    )


def _read_mask(
    path: Path, classes: tuple[str, ...] | None, mask_values: tuple[tuple[int, int], ...] | None
) -> npt.NDArray[np.uint8]:
    return translate_labels(
        path, _rasters.read_labels(path), classes, None if mask_values is None else dict(mask_values)
    )
