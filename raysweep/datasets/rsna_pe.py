"""RSNA pulmonary embolism CT: 7,279 examinations with a label for every slice and for every examination.

Files, in any sub-folder::

    train.csv    StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, then the labels, 0 or 1
    train/<StudyInstanceUID>/<SeriesInstanceUID>/<SOPInstanceUID>.dcm

Each slice becomes three channels of 8 bits, the windows lung, pulmonary embolism and mediastinum, which lose what lies
outside of them; ``channels: hounsfield`` keeps Hounsfield units, one channel of 16 bits. An examination is a subject:
the data set does not tell patients apart otherwise.

Source: Colak et al., The RSNA Pulmonary Embolism CT Dataset, Radiology: Artificial Intelligence 2021.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from raysweep.data.pack_format import LabelScope
from raysweep.datasets._dicom import DicomHeader, read_header
from raysweep.datasets._series import Window, group_series, series_reading
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule, strata_by_labels
from raysweep.datasets._survey import About, Reading, Scan, Survey
from raysweep.datasets._tables import find_one, label, read_table
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="7,279 CT pulmonary angiographies; embolism on each slice, and where and of what kind in the examination",
    access="Kaggle, competition rsna-str-pulmonary-embolism-detection",
    layout="`train.csv`, `train/<study>/<series>/<instance>.dcm`",
    splits="drawn by examination, stratified by rarest label",
)

_SLICE_LABELS = ("pe_present_on_image",)
_STUDY_LABELS = (
    "negative_exam_for_pe",
    "indeterminate",
    "rv_lv_ratio_gte_1",
    "rv_lv_ratio_lt_1",
    "leftsided_pe",
    "rightsided_pe",
    "central_pe",
    "chronic_pe",
    "acute_and_chronic_pe",
)
Vector = tuple[float, ...]
_LABELS = _SLICE_LABELS + _STUDY_LABELS
_SCOPES: tuple[LabelScope, ...] = tuple("slice" if name in _SLICE_LABELS else "subject" for name in _LABELS)
_IDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


class Options(DrawnSplits):
    """Options of the RSNA pulmonary embolism packer."""

    channels: Literal["windows", "hounsfield"] = "windows"
    """windows: three 8-bit channels, lossy; hounsfield: one channel, every value kept."""
    windows: tuple[Window, Window, Window] = ((-600.0, 1500.0), (100.0, 700.0), (40.0, 400.0))
    """Centre and width of each window in Hounsfield units."""
    every: int = Field(1, ge=1)
    """Every how many slices of a series to pack one."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the table and at the headers of the DICOM files.

    Raises:
        PackError: if files are missing, or the table gives slices of one examination different examination labels.
    """
    table = find_one(source, "train.csv")
    series = _series(table)
    examinations = _examinations(table, series)
    split_of = draw_splits(
        strata_by_labels(examinations.items()),
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )
    survey_one = partial(_survey_series, table.parent / "train", options)
    arguments = [(study, one, labels, split_of[study]) for (study, one), labels in sorted(series.items())]
    return Survey(
        scan(survey_one, arguments),
        label_names=_LABELS,
        label_scopes=_SCOPES,
        split_rule=rule(options, "by examination, stratified by rarest label"),
    )


def _series(table: Path) -> dict[tuple[str, str], dict[str, Vector]]:
    """Return (examination, series) -> instance -> labels; the set has 1.8 million slices, so equal vectors are one."""
    found: dict[tuple[str, str], dict[str, Vector]] = {}
    vectors: dict[tuple[str, ...], Vector] = {}
    for row in read_table(table, (*_IDS, *_LABELS)):
        cells = tuple(row[name] for name in _LABELS)
        if cells not in vectors:
            vectors[cells] = tuple(label(table, name, row[name]) for name in _LABELS)
        found.setdefault((row[_IDS[0]], row[_IDS[1]]), {})[row[_IDS[2]]] = vectors[cells]
    return found


def _examinations(table: Path, series: dict[tuple[str, str], dict[str, Vector]]) -> dict[str, Vector]:
    """Return examination -> its own labels."""
    found: dict[str, Vector] = {}
    for (study, _), slices in series.items():
        for labels in slices.values():
            vector = labels[len(_SLICE_LABELS) :]
            if found.setdefault(study, vector) != vector:
                raise PackError(f"{table} gives slices of the examination {study} different examination labels")
    return found


def _survey_series(
    folder: Path, options: Options, study: str, series: str, labels: dict[str, Vector], split: str
) -> Reading:
    headers = [read_header(_existing(folder / study / series / f"{name}.dcm")) for name in labels]
    volumes = group_series(headers)
    if len(volumes) != 1:
        raise PackError(f"the files in {folder / study / series} belong to {len(volumes)} series; one is expected")
    (files,) = volumes.values()

    def labels_of(header: DicomHeader) -> Vector:
        return labels[header.path.stem]

    return series_reading(
        files[:: options.every],
        volume=series,
        subject=study,
        split=split,
        labels=labels_of,
        windows=options.windows if options.channels == "windows" else None,
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise PackError(f"{path} does not exist, though the table names it: download it again")
    return path
