"""M&Ms: cine cardiac MRI of 345 patients from six hospitals and four vendors; both ventricles segmented.

Files, in any sub-folder::

    211230_M&Ms_Dataset_information_diagnosis_opendataset.csv    External code, Vendor, ED, ES, Pathology, ...
    Training/Labeled/A0S9V9/A0S9V9_sa.nii.gz                     the cine, (x, y, z, t)
    Training/Labeled/A0S9V9/A0S9V9_sa_gt.nii.gz                  masks, drawn at the frames ED and ES alone
    Training/Unlabeled/...  Validation/...  Testing/...

Frames are counted from 0, as the table does. Rows run along the NIfTI y axis, columns along x, as stored.

Source: Campello et al., Multi-Centre, Multi-Vendor and Multi-Disease Cardiac Segmentation, IEEE TMI 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets._labels import check_classes
from raysweep.datasets._nifti import NiftiHeader, read_header, read_pixels, slice_of
from raysweep.datasets._survey import About, Reading, Scan, Survey, intensity_range
from raysweep.datasets._tables import Row, find_one, one_hot, read_table
from raysweep.errors import PackError
from raysweep.settings import Settings

RECIPE = 1
CLASS_NAMES = ("background", "left_ventricle", "myocardium", "right_ventricle")
ABOUT = About(
    data="cine cardiac MRI of 345 patients, six hospitals, four vendors; both ventricles, myocardium; pathology",
    access="register at the M&Ms challenge's site of the University of Barcelona (ub.edu/mnms)",
    layout="`*opendataset.csv`, `{Training/Labeled,Training/Unlabeled,Validation,Testing}/CODE/CODE_sa{,_gt}.nii.gz`",
    splits="official folders",
)

_FOLDERS = {"Training": "train", "Validation": "val", "Testing": "test"}
_COLUMNS = ("External code", "ED", "ES", "Pathology")


class Options(Settings):
    """Options of the M&Ms packer."""

    cine: bool = True
    """Whether to include the unlabelled frames, for pretraining."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the table and the headers of the cines.

    Raises:
        PackError: if files are missing, unreadable or contradict each other.
    """
    table = find_one(source, "*M&Ms*.csv", "*opendataset*.csv")
    rows = {row["External code"]: row for row in read_table(table, _COLUMNS)}
    pathologies = tuple(sorted({row["Pathology"] for row in rows.values() if row["Pathology"]}))
    found = sorted(source.rglob("*_sa.nii.gz"))
    if not found:
        raise PackError(f"{source} holds no cine CODE_sa.nii.gz, in whatever sub-folder")
    arguments = []
    for path in found:
        code = path.name.removesuffix("_sa.nii.gz")
        if code not in rows:
            raise PackError(f"{table} has no row for {code}, whose cine is {path}")
        labels = one_hot(rows[code]["Pathology"] or None, pathologies)
        arguments.append((path, code, _split_of(path, source), _frames(table, rows[code]), labels, options.cine))
    per_patient = scan(_readings, arguments)
    return Survey(
        [reading for one in per_patient for reading in one],
        class_names=CLASS_NAMES,
        label_names=pathologies,
        label_kind="multi-class",
        label_scopes="subject",
        split_rule="folders Training, Validation, Testing",
    )


def _split_of(path: Path, source: Path) -> str:
    found = [split for name, split in _FOLDERS.items() if name in path.relative_to(source).parts]
    if len(found) != 1:
        raise PackError(f"{path} is in none of the folders {', '.join(_FOLDERS)}, which name the splits")
    return found[0]


def _frames(table: Path, row: Row) -> tuple[int, int]:
    try:
        return int(row["ED"]), int(row["ES"])
    except ValueError as error:
        raise PackError(f"{table} gives {row['External code']} no readable ED and ES: {error}") from error


def _readings(
    path: Path, code: str, split: str, marked: tuple[int, int], labels: tuple[float, ...], cine: bool
) -> list[Reading]:
    header = read_header(path, 4)
    mask = path.with_name(f"{code}_sa_gt.nii.gz")
    has_mask = mask.is_file()
    if has_mask and read_header(mask, 4).shape != header.shape:
        raise PackError(f"{mask} has another shape than its cine, {header.shape}")
    frames = tuple(frame for frame in range(header.shape[3]) if cine or (has_mask and frame in marked))
    if has_mask and max(marked) >= header.shape[3]:
        raise PackError(f"{path} has {header.shape[3]} frames; the table marks {marked}, counted from 0")
    slices = tuple(
        SliceHeader(
            bucket=header.bucket,
            subject=code,
            volume=code,
            split=split,
            has_mask=has_mask and frame in marked,
            annotated=has_mask and frame in marked,
            frame=frame,
            slice_number=z,
            spacing_mm=header.spacing_mm,
            labels=labels,
        )
        for frame in frames
        for z in range(header.shape[2])
    )
    return [Reading(_read, (header, mask if has_mask else None, frames, marked), slices)] if slices else []


def _read(
    header: NiftiHeader, mask: Path | None, frames: tuple[int, ...], marked: tuple[int, int]
) -> Iterator[SlicePixels]:
    cine = read_pixels(header.path)
    masks = None if mask is None else check_classes(mask, read_pixels(mask), CLASS_NAMES)
    for frame in frames:
        low, high = intensity_range(cine[..., frame])
        drawn = masks if frame in marked else None
        for z in range(cine.shape[2]):
            classes = None if drawn is None else slice_of(drawn, z, frame)
            yield SlicePixels(slice_of(cine, z, frame), classes, low, high)
