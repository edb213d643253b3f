"""ChestX-ray14: 112,120 frontal chest radiographs of 30,805 patients, 14 findings mined from reports.

Files, images in any sub-folder (``images_001/images/`` ... as they are downloaded, or one folder)::

    Data_Entry_2017.csv                  or Data_Entry_2017_v2020.csv
    train_val_list.txt  test_list.txt    the official split, by patient
    images/00000001_000.png              1024 x 1024, 8 bits; a few hundred are grey images stored as RGBA

Labels are the 14 findings, 1 or 0; an image with ``No Finding`` has 0 throughout. Spacing is that of the released
image: the original's, times its size, over 1024.

Source: Wang et al., ChestX-ray8, CVPR 2017.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from raysweep.datasets._images import ImageFile, files_below, image_readings
from raysweep.datasets._splits import DrawnValidation, draw_splits, rule, splits_of_lists, strata_by_labels
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.datasets._tables import Row, find_one, read_table
from raysweep.errors import PackError, did_you_mean

RECIPE = 1
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
ABOUT = About(
    data="112,120 chest radiographs of 30,805 patients; 14 findings",
    access="free download, linked from the NIH Clinical Center's page of ChestX-ray14",
    layout="`Data_Entry_2017.csv` (or `_v2020`), `train_val_list.txt`, `test_list.txt`, `images*/**/*.png`",
    splits="official test list; validation drawn from the training patients, or `lists: benchmark`",
)

_NO_FINDING = "No Finding"
_RELEASED_PX = 1024
_OFFICIAL = {"train": "train_val_list.txt", "test": "test_list.txt"}
_BENCHMARK = {split: f"Xray14_{split}_official.txt" for split in ("train", "val", "test")}
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")
_SPACING_COLUMNS = (
    ("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"),
    ("OriginalImageWidth", "OriginalImageHeight", "OriginalImagePixelSpacing_x", "OriginalImagePixelSpacing_y"),
)


class Options(DrawnValidation):
    """Options of the ChestX-ray14 packer."""

    lists: Literal["official", "benchmark"] = "official"
    """benchmark: Xray14_{train,val,test}_official.txt of a benchmark's authors, beside the table, name all splits."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the table, the lists and the images' headers.

    Raises:
        PackError: if files or columns are missing, or the lists separate images of one patient.
    """
    table = find_one(source, "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
    rows = list(read_table(table, _COLUMNS))
    labels = {row["Image Index"]: _findings(table, row) for row in rows}
    patients = {row["Image Index"]: row["Patient ID"] for row in rows}
    names = _OFFICIAL if options.lists == "official" else _BENCHMARK
    split_of = splits_of_lists({split: find_one(source, name) for split, name in names.items()})
    _check_listed(split_of, patients, table)
    if options.lists == "official":
        training = [(patients[name], labels[name]) for name, split in split_of.items() if split == "train"]
        drawn = draw_splits(strata_by_labels(training), val_fraction=options.val_fraction, seed=options.seed)
        split_of = {name: drawn[patients[name]] if split == "train" else split for name, split in split_of.items()}
    files = files_below(source, (".png",))
    missing = [name for name in split_of if name not in files]
    if missing:
        raise PackError(
            f"{source} lacks {len(missing)} of the listed images, the first {missing[0]}: download them all"
        )
    images = [
        ImageFile(
            path=files[row["Image Index"]],
            subject=patients[row["Image Index"]],
            split=split_of[row["Image Index"]],
            volume=row["Image Index"],
            labels=labels[row["Image Index"]],
            spacing_mm=_spacing(table, row),
        )
        for row in rows
        if row["Image Index"] in split_of
    ]
    published = "official lists" if options.lists == "official" else "lists of a benchmark's authors"
    is_drawn = options.lists == "official"
    return Survey(
        image_readings(images, scan, as_grey=True),
        label_names=FINDINGS,
        split_rule=rule(options, "from the training patients, stratified by rarest finding", published)
        if is_drawn
        else published,
    )


def _findings(table: Path, row: Row) -> tuple[float, ...]:
    found = row["Finding Labels"].split("|")
    unknown = [name for name in found if name not in (*FINDINGS, _NO_FINDING)]
    if unknown:
        nearest = did_you_mean(unknown[0], FINDINGS)
        raise PackError(f"{table} gives {row['Image Index']} the finding {unknown[0]!r}.{nearest}")
    return tuple(float(name in found) for name in FINDINGS)


def _check_listed(split_of: dict[str, str], patients: dict[str, str], table: Path) -> None:
    unknown = [name for name in split_of if name not in patients]
    if unknown:
        raise PackError(f"{table} has no row for {unknown[0]} ({len(unknown)} listed images are not in it)")


def _spacing(table: Path, row: Row) -> tuple[float, float]:
    for width, height, x, y in _SPACING_COLUMNS:
        if width in row:
            try:
                numbers = [float(row[name]) for name in (height, y, width, x)]
            except (KeyError, ValueError) as error:
                raise PackError(f"{table} gives {row['Image Index']} no readable size and spacing: {error}") from error
            return numbers[0] * numbers[1] / _RELEASED_PX, numbers[2] * numbers[3] / _RELEASED_PX
    return math.nan, math.nan
