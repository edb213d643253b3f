"""ISIC 2018 and 2019: dermoscopy; the lesion segmented (task 1), or its diagnosis (task 3; 2019).

Files, in any sub-folder, as the archives unpack::

    ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg    (also Validation, Test)
    ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png
    ISIC2018_Task3_Training_Input/ISIC_0024306.jpg      (also Validation, Test)
    ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv    image, MEL, NV, BCC, ...
    ISIC2018_Task3_Training_LesionGroupings.csv         image, lesion_id: a lesion has several photographs
    ISIC_2019_Training_Input/*.jpg  ISIC_2019_Training_GroundTruth.csv  ISIC_2019_Training_Metadata.csv

A lesion is a subject where a table says which photographs show it. 2018 has official validation and test folders; where
they are missing, and for 2019, splits are drawn by lesion.

Source: Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv:1902.03368; Tschandl et al., The
HAM10000 dataset, Scientific Data 2018.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from raysweep.datasets import _rasters
from raysweep.datasets._images import ImageFile, image_readings
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule, strata_by_labels
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.datasets._tables import read_table
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="dermoscopy: 3,694 images with the lesion segmented, 11,720 with a diagnosis (2018), 25,331 (2019)",
    access="free download from challenge.isic-archive.com",
    layout="`ISIC2018_Task{1-2,3}_{Training,Validation,Test}_Input/`, `..._GroundTruth/`, or `ISIC_2019_Training_*`",
    splits="official folders of 2018 where they are there, else drawn by lesion, stratified",
)

_PARTS = {"Training": "train", "Validation": "val", "Test": "test"}
_LESION_TABLES = ("ISIC2018_Task3_{part}_LesionGroupings.csv", "ISIC_2019_{part}_Metadata.csv")


class Options(DrawnSplits):
    """Options of the ISIC packer."""

    task: Literal["segmentation", "diagnosis"] = "segmentation"
    """segmentation: task 1 of 2018; diagnosis: task 3 of 2018, or 2019."""
    year: Literal[2018, 2019] = 2018
    """Which challenge; 2019 has a diagnosis only."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at names, tables and headers.

    Raises:
        PackError: if an image, a mask or a table is missing, or options contradict each other.
    """
    if options.year == 2019 and options.task == "segmentation":
        raise PackError("ISIC 2019 has no masks; pack it with task: diagnosis, or year: 2018")
    images: list[ImageFile] = []
    names: tuple[str, ...] = ()
    for part, split in _PARTS.items():
        found, part_names = _images(source, part, split, options)
        if found and names and part_names != names:
            raise PackError(f"the {part} table of {source} names the diagnoses {part_names}; Training names {names}")
        images, names = images + found, names or part_names
    if not images:
        raise PackError(f"{source} holds no {_input_folder('Training', options)} with images, in whatever sub-folder")
    images, how = _with_splits(images, options)
    return Survey(
        image_readings(images, scan),
        class_names=("background", "lesion") if options.task == "segmentation" else (),
        label_names=names,
        label_kind="multi-class",
        label_scopes="subject",
        split_rule=how,
    )


def _input_folder(part: str, options: Options) -> str:
    if options.year == 2019:
        return f"ISIC_2019_{part}_Input"
    return f"ISIC2018_Task{'1-2' if options.task == 'segmentation' else '3'}_{part}_Input"


def _images(source: Path, part: str, split: str, options: Options) -> tuple[list[ImageFile], tuple[str, ...]]:
    folders = sorted(source.rglob(_input_folder(part, options)))
    paths = sorted(path for folder in folders for path in folder.rglob("ISIC_*.jpg"))
    if not paths:
        return [], ()
    if options.task == "segmentation":
        return [_segmented(path, part, split) for path in paths], ()
    tables = sorted(source.rglob(f"ISIC*{options.year}*_{part}_GroundTruth.csv"))
    tables = [table for table in tables if options.year == 2019 or "Task3" in table.name]
    if not tables:  # 2019's test set: images without a published diagnosis
        return [], ()
    labels, names = _diagnoses(tables[0])
    lesions = _lesions(source, part)
    missing = [path for path in paths if path.stem not in labels]
    if missing:
        raise PackError(f"{tables[0]} has no row for {missing[0]} ({len(missing)} such images)")
    found = [
        ImageFile(path, lesions.get(path.stem) or path.stem, split, path.stem, labels[path.stem]) for path in paths
    ]
    return found, names


def _segmented(path: Path, part: str, split: str) -> ImageFile:
    folder = path.parent.with_name(f"ISIC2018_Task1_{part}_GroundTruth")
    mask = folder / f"{path.stem}_segmentation.png"
    if not mask.is_file() and part == "Training":
        raise PackError(f"{mask} does not exist; {path} needs it")
    if not mask.is_file():
        return ImageFile(path, path.stem, split, path.stem)
    return ImageFile(path, path.stem, split, path.stem, read_mask=_read_lesion, mask_arguments=(mask,))


def _diagnoses(table: Path) -> tuple[dict[str, tuple[float, ...]], tuple[str, ...]]:
    """Return image -> one-hot diagnosis, and the names; an image without any (the class UNK) has an unknown one."""
    labels: dict[str, tuple[float, ...]] = {}
    names: tuple[str, ...] = ()
    for row in read_table(table, ("image",)):
        names = names or tuple(name for name in row if name not in ("image", "UNK"))
        try:
            vector = tuple(float(row[name]) for name in names)
        except ValueError as error:
            raise PackError(f"{table} gives {row['image']} no readable diagnosis: {error}") from error
        if sorted(vector) not in ([0.0] * len(names), [0.0] * (len(names) - 1) + [1.0]):
            raise PackError(f"{table} gives {row['image']} the diagnosis {vector}; exactly one must be 1")
        labels[row["image"]] = vector if sum(vector) else (math.nan,) * len(names)
    return labels, names


def _lesions(source: Path, part: str) -> dict[str, str]:
    tables = [table for name in _LESION_TABLES for table in sorted(source.rglob(name.format(part=part)))]
    return {row["image"]: row["lesion_id"] for table in tables for row in read_table(table, ("image", "lesion_id"))}


def _with_splits(images: list[ImageFile], options: Options) -> tuple[list[ImageFile], str]:
    """Draw the splits that have no annotated image of their own."""
    held = {one.split for one in images if one.is_annotated}
    val = 0.0 if "val" in held else options.val_fraction
    test = 0.0 if "test" in held else options.test_fraction
    if not val and not test:
        return images, "official folders"
    training = [one for one in images if one.split == "train"]
    strata = strata_by_labels((one.subject, one.labels or (0.0,)) for one in training)
    drawn = draw_splits(strata, val_fraction=val, test_fraction=test, seed=options.seed)
    kept = [one for one in images if one.split in held]
    drawn_options = options.model_copy(update={"val_fraction": val, "test_fraction": test})
    return (
        [replace(one, split=drawn[one.subject]) if one.split == "train" else one for one in kept],
        rule(drawn_options, "by lesion, stratified by diagnosis", "official folders" if len(held) > 1 else ""),
    )


def _read_lesion(path: Path) -> npt.NDArray[np.uint8]:
    return _rasters.read_binary(path).astype(np.uint8)
