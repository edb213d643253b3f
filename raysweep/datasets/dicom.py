"""A folder of DICOM files: series by series in their order, with labels from a table if there is one.

Every file below the folder that begins as DICOM files do, whatever its name. Single slices of a series are a volume, in
the order of their positions; a file of several frames is one of its own. The patient's identity is the tag PatientID.

With the option ``table``, a CSV file in the folder, labels come from its columns; ``key`` names the column, and the
tag, by which its rows belong to patients, studies, series or instances.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Literal

from raysweep.data.pack_format import LabelScope
from raysweep.datasets._dicom import DicomHeader, is_dicom, read_header
from raysweep.datasets._series import Window, group_series, patients_of, series_reading
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule, strata_by_labels
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.datasets._tables import label, read_table
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="DICOM files of any modality, grey or RGB, compressed or not, single or multi-frame",
    access="yours",
    layout="DICOM files, in any sub-folder; a table of labels if you have one",
    splits="drawn by patient, stratified by rarest label; without labels all train",
)

Key = Literal["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
_SCOPE: dict[str, LabelScope] = {"PatientID": "subject", "SeriesInstanceUID": "volume"}
_FIELD = {
    "PatientID": "patient",
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "SOPInstanceUID": "instance",
}


class Options(DrawnSplits):
    """Options of the DICOM packer."""

    windows: tuple[Window, ...] | None = None
    """Centre and width of display windows, an 8-bit channel each, lossy; None keeps every value in one channel."""
    table: str | None = None
    """Name of a CSV file in the folder whose columns are labels: 1, 0, -1 for uncertain, nothing for unknown."""
    key: Key = "PatientID"
    """Column of that table, and tag of the files, that tells what a row is about."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the headers of all files, and at the table.

    Raises:
        PackError: if there are no DICOM images, one cannot be read, or the table does not fit them.
    """
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and path.name != "DICOMDIR"]
    paths = [path for path, is_one in zip(files, scan(is_dicom, [(path,) for path in files]), strict=True) if is_one]
    if not paths:
        raise PackError(f"{source} holds no file that begins as DICOM files do, in whatever sub-folder")
    headers: list[DicomHeader] = scan(read_header, [(path,) for path in paths])
    volumes = group_series(headers)
    patients = patients_of(volumes)
    names, labels = _labels(source, options, headers)
    of_file = partial(_labels_of, labels, _FIELD[options.key], (math.nan,) * len(names))
    if names:
        vectors = ((patients[name], of_file(one)) for name, files_ in volumes.items() for one in files_)
        split_of = draw_splits(
            strata_by_labels(vectors),
            val_fraction=options.val_fraction,
            test_fraction=options.test_fraction,
            seed=options.seed,
        )
    else:
        split_of = dict.fromkeys(patients.values(), "train")
    readings = [
        series_reading(
            volumes[name],
            volume=name,
            subject=patients[name],
            split=split_of[patients[name]],
            labels=of_file,
            windows=options.windows,
        )
        for name in volumes
    ]
    return Survey(
        readings,
        label_names=names,
        label_scopes=_SCOPE.get(options.key, "slice"),
        split_rule=rule(options, "by patient, stratified by rarest label") if names else "all train",
    )


def _labels(
    source: Path, options: Options, headers: list[DicomHeader]
) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
    """Return the table's label columns, and its vectors by key."""
    if options.table is None:
        return (), {}
    table = source / options.table
    rows = list(read_table(table, (options.key,)))
    names = tuple(name for name in (rows[0] if rows else {}) if name != options.key)
    if not names:
        raise PackError(f"{table} has no rows, or no label columns beside {options.key}")
    labels = {row[options.key]: tuple(label(table, name, row[name]) for name in names) for row in rows}
    known = {getattr(one, _FIELD[options.key]) for one in headers}
    if len(labels) != len(rows):
        raise PackError(f"{table} has two rows of the same {options.key}")
    if not known & set(labels):
        raise PackError(f"{table} has no {options.key} of the files, such as {min(known)!r}; it has {min(labels)!r}")
    return names, labels


def _labels_of(
    labels: dict[str, tuple[float, ...]], field: str, unknown: tuple[float, ...], header: DicomHeader
) -> tuple[float, ...]:
    return labels.get(getattr(header, field), unknown)
