"""SIIM-ACR pneumothorax: chest radiographs as DICOM, pneumothorax as run lengths.

Files, in any sub-folder::

    train-rle.csv                  ImageId, EncodedPixels: -1 for none; several rows for several pneumothoraces;
                                   stage_2_train.csv is read instead where it is there
    dicom-images-train/<study>/<series>/<instance>.dcm    and dicom-images-test/, all below the folder are looked at

Runs count pixels down each column, each start from the end of the run before. DICOM images that no row names are left
out; with ``unlabelled: true`` they are train images without labels.

Source: SIIM-ACR Pneumothorax Segmentation, Kaggle 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets._dicom import DicomHeader, read_frames, read_header
from raysweep.datasets._run_length import decode_runs
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule
from raysweep.datasets._survey import About, Reading, Scan, Survey, intensity_range
from raysweep.datasets._tables import find_one, read_table
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="12,047 chest radiographs; pneumothorax, if there is one",
    access="Kaggle, competition siim-acr-pneumothorax-segmentation (images by its Cloud Healthcare archive)",
    layout="`train-rle.csv` or `stage_2_train.csv`, and `**/*.dcm`",
    splits="drawn by patient, stratified by pneumothorax",
)

_NONE = "-1"


class Options(DrawnSplits):
    """Options of the SIIM-ACR packer."""

    unlabelled: bool = False
    """Whether to pack images that the table does not name, as train images without labels."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the table and at the headers of the DICOM files.

    Raises:
        PackError: if the table names images that are not there, or contradicts itself.
    """
    table = find_one(source, "stage_2_train.csv", "train-rle.csv")
    runs = _runs(table)
    paths = sorted(source.rglob("*.dcm"))
    named = [path for path in paths if options.unlabelled or path.stem in runs]
    headers: list[DicomHeader] = scan(read_header, [(path,) for path in named])
    missing = set(runs) - {path.stem for path in named}
    if missing:
        raise PackError(
            f"{source} lacks {len(missing)} of the images that {table.name} names, such as {min(missing)}.dcm"
        )
    strata: dict[str, bool] = {}
    for one in headers:
        if one.path.stem in runs:
            patient = _patient(one)
            strata[patient] = strata.get(patient, False) or bool(runs[one.path.stem])
    split_of = draw_splits(
        strata, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=options.seed
    )
    readings = [_reading(one, split_of.get(_patient(one), "train"), runs.get(one.path.stem)) for one in headers]
    return Survey(
        readings,
        class_names=("background", "pneumothorax"),
        label_names=("pneumothorax",),
        split_rule=rule(options, "by patient, stratified by pneumothorax"),
    )


def _runs(table: Path) -> dict[str, tuple[str, ...]]:
    """Return image -> the run lengths of each pneumothorax; an empty tuple where there is none."""
    found: dict[str, tuple[str, ...]] = {}
    for row in read_table(table, ("ImageId", "EncodedPixels")):
        name, text = row["ImageId"], row["EncodedPixels"]
        if text == _NONE and found.get(name):
            raise PackError(f"{table} gives {name} both a pneumothorax and none")
        found[name] = found.get(name, ()) + (() if text == _NONE else (text,))
    return found


def _patient(header: DicomHeader) -> str:
    return header.patient or header.study or header.instance


def _reading(header: DicomHeader, split: str, runs: tuple[str, ...] | None) -> Reading:
    if header.num_frames != 1:
        raise PackError(f"{header.path} has {header.num_frames} frames; a radiograph has one")
    one = SliceHeader(
        bucket=header.bucket,
        subject=_patient(header),
        volume=header.path.stem,
        split=split,
        has_mask=runs is not None,
        annotated=runs is not None,
        spacing_mm=header.spacing_mm,
        labels=(math.nan if runs is None else float(bool(runs)),),
    )
    return Reading(_read, (header.path, runs), (one,))


def _read(path: Path, runs: tuple[str, ...] | None) -> Iterator[SlicePixels]:
    image = read_frames(path)[0]
    low, high = intensity_range(image)
    mask = None
    if runs is not None:
        height, width = image.shape[1:]
        mask = decode_runs("", height, width, "relative", path.name)
        for text in runs:
            mask |= decode_runs(text, height, width, "relative", path.name)
    yield SlicePixels(image, mask, low, high)
