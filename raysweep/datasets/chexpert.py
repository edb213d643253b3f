"""CheXpert: 224,316 chest radiographs of 65,240 patients, 14 observations that may be uncertain or not mentioned.

Files, in any sub-folder; the tables' paths end in the images' own::

    CheXpert-v1.0-small/train.csv    CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg
    CheXpert-v1.0-small/valid.csv    CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg
    CheXpert-v1.0-small/test.csv     the radiologists' test set, where you have it

Labels stay what the table says: 1, 0, -1 for uncertain, NaN for not mentioned. What a study makes of -1 and NaN
(U-Ones, U-Zeros, smoothed labels, left out) is its own choice, see :mod:`raysweep.data.label_policies`.

Source: Irvin et al., CheXpert, AAAI 2019.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from raysweep.datasets._images import ImageFile, image_readings
from raysweep.datasets._splits import DrawnValidation, draw_splits, rule, strata_by_labels
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.datasets._tables import find_one, label, read_table
from raysweep.errors import PackError

RECIPE = 1
OBSERVATIONS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
ABOUT = About(
    data="224,316 chest radiographs of 65,240 patients; 14 observations: yes, no, uncertain, not mentioned",
    access="register with Stanford AIMI; the full set or `CheXpert-v1.0-small`",
    layout="`train.csv`, `valid.csv`, `test.csv` if you have it, and the folders `train`, `valid`, `test` beside them",
    splits="with `test.csv`: test, and `valid.csv` is validation; without: `valid.csv` is test, validation is drawn",
)

_PATIENT = re.compile(r"/(patient\d+)/")


class Options(DrawnValidation):
    """Options of the CheXpert packer."""

    views: Literal["all", "frontal", "lateral"] = "all"
    """Which radiographs to pack."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the tables and the images' headers.

    Raises:
        PackError: if files or columns are missing, or a label is not one the table may hold.
    """
    train = find_one(source, "train.csv")
    root = train.parent
    has_test = (root / "test.csv").is_file()
    tables = {"train.csv": "train", "valid.csv": "val" if has_test else "test"}
    if has_test:
        tables["test.csv"] = "test"
    images = [image for name, split in tables.items() for image in _images(root, root / name, split, options.views)]
    published = "test.csv, valid.csv" if has_test else "valid.csv as test"
    if not has_test:
        strata = strata_by_labels((one.subject, one.labels) for one in images if one.split == "train")
        drawn = draw_splits(strata, val_fraction=options.val_fraction, seed=options.seed)
        images = [replace(one, split=drawn.get(one.subject, one.split)) for one in images]
        published = rule(options, "from the training patients, stratified by rarest observation", published)
    return Survey(image_readings(images, scan, as_grey=True), label_names=OBSERVATIONS, split_rule=published)


def _images(root: Path, table: Path, split: str, views: str) -> list[ImageFile]:
    found = []
    for row in read_table(table, ("Path",)):
        match = _PATIENT.search(row["Path"])
        if match is None:
            raise PackError(f"{table} has the path {row['Path']!r}, in which no folder patientNNNNN names the patient")
        # Paths begin with the release's name, which a copy need not have kept.
        kept = row["Path"][: match.start()].rsplit("/", 1)[-1] + row["Path"][match.start() :]
        if views != "all" and views not in Path(kept).stem:
            continue
        found.append(
            ImageFile(
                path=root / kept,
                subject=match.group(1),
                split=split,
                volume=kept,
                # The radiologists' test set leaves observations out that the others have.
                labels=tuple(label(table, name, row.get(name, "")) for name in OBSERVATIONS),
            )
        )
    if not found:
        raise PackError(f"{table} names no {'' if views == 'all' else views + ' '}radiograph")
    return found
