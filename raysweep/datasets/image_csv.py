"""Images and a table of labels: a row for each image, columns of yes, no, uncertain or nothing.

Files::

    labels.csv      image, then label columns: 1, 0, -1 for uncertain, nothing for unknown;
                    also subject and split (train, val, test), if there are such columns
    images/...      the images, wherever below the folder the column image says

With ``kind: multi-class`` exactly one label column of a row is 1. Alternatively the option ``class_column`` names a
column of class names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from raysweep.data.pack_format import SPLITS
from raysweep.datasets._images import ImageFile, image_readings
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule, strata_by_labels
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.datasets._tables import Row, label, one_hot, read_table
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="2D images with labels in a table",
    access="yours",
    layout="`labels.csv` with the columns `image`, one for each label, `subject` and `split` if you have them; images",
    splits="the column `split`, else drawn by subject, stratified by rarest label",
)

_RESERVED = ("image", "subject", "split")


class Options(DrawnSplits):
    """Options of the packer of images with a table."""

    table: str = "labels.csv"
    """The table's name in the folder."""
    labels: tuple[str, ...] | None = None
    """Label columns; None: all but image, subject, split and the class column."""
    class_column: str | None = None
    """Column that holds the name of each image's class; there are no label columns then."""
    kind: Literal["multi-label", "multi-class"] = "multi-label"
    """Whether any number of label columns may be 1, or exactly one is."""
    grey: bool = False
    """Whether files that store grey images as colour are to be packed as grey."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the table and the images' headers.

    Raises:
        PackError: if files or columns are missing, a cell cannot be read, or a subject is in two splits.
    """
    table = source / options.table
    wanted = ("image", *(options.labels or ()), *([options.class_column] if options.class_column else []))
    rows = list(read_table(table, wanted))
    if not rows:
        raise PackError(f"{table} has no rows")
    names = _label_names(table, rows, options)
    images = [_image(source, table, row, names, options) for row in rows]
    has_splits = "split" in rows[0]
    if not has_splits:
        split_of = draw_splits(
            strata_by_labels((one.subject, one.labels) for one in images),
            val_fraction=options.val_fraction,
            test_fraction=options.test_fraction,
            seed=options.seed,
        )
        images = [replace(one, split=split_of[one.subject]) for one in images]
    return Survey(
        image_readings(images, scan, as_grey=options.grey),
        label_names=names,
        label_kind="multi-class" if options.class_column else options.kind,
        split_rule="column split" if has_splits else rule(options, "by subject, stratified by rarest label"),
    )


def _label_names(table: Path, rows: Sequence[Row], options: Options) -> tuple[str, ...]:
    if options.class_column is not None:
        column = options.class_column
        return tuple(sorted({row[column] for row in rows if row[column]}))
    names = options.labels or tuple(name for name in rows[0] if name not in _RESERVED)
    if not names:
        raise PackError(f"{table} has no label columns beside {', '.join(_RESERVED)}")
    return names


def _image(source: Path, table: Path, row: Row, names: tuple[str, ...], options: Options) -> ImageFile:
    path = source / row["image"]
    if not row["image"] or not path.is_file():
        raise PackError(f"{table} names the image {row['image']!r}, which is not in {source}")
    split = row.get("split", SPLITS[0])
    if split not in SPLITS:
        raise PackError(f"{table} has the split {split!r} for {row['image']}; allowed are {', '.join(SPLITS)}")
    if options.class_column is not None:
        labels = one_hot(row[options.class_column] or None, names)
    else:
        labels = tuple(label(table, name, row[name]) for name in names)
        known = [value for value in labels if not math.isnan(value)]
        if options.kind == "multi-class" and known and sorted(known) != [0.0] * (len(names) - 1) + [1.0]:
            raise PackError(f"{table} gives {row['image']} the labels {labels}; of a multi-class one exactly one is 1")
    return ImageFile(path, row.get("subject") or row["image"], split, row["image"], labels)
