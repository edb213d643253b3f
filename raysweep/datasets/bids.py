"""BIDS: NIfTI images by subject and session, masks in derivatives, facts of participants in a table.

Files, the parts in brackets where there are any::

    participants.tsv                                                 participant_id, and columns of facts
    sub-01/[ses-1/]anat/sub-01_[ses-1_]T1w.nii.gz
    derivatives/labels/sub-01/[ses-1/]anat/sub-01_[ses-1_]dseg.nii.gz    or ..._label-lesion_mask.nii.gz

The option ``suffixes`` names the images of a session that are its channels; ``mask`` how the names of masks end.

Source: Gorgolewski et al., The brain imaging data structure, Scientific Data 2016.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.datasets._labels import infer_class_names, translate_labels
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule
from raysweep.datasets._survey import About, Reading, Scan, Survey
from raysweep.datasets._tables import one_hot, read_table
from raysweep.datasets._volumes import Plane, read_volume_header, volume_reading
from raysweep.errors import PackError, did_you_mean

RECIPE = 1
ABOUT = About(
    data="your own NIfTI images, or a public set, in BIDS",
    access="yours; OpenNeuro and others",
    layout="`sub-ID/[ses-ID/]*/sub-ID_*_SUFFIX.nii.gz`, `derivatives/**/sub-ID_*_dseg.nii.gz`, `participants.tsv`",
    splits="drawn by participant, stratified by the option `label`",
)

_PARTICIPANT = re.compile(r"sub-[A-Za-z0-9]+")
_UNKNOWN = ("", "n/a", "N/A")


class Options(DrawnSplits):
    """Options of the BIDS packer."""

    suffixes: tuple[str, ...] = ("T1w",)
    """Endings of image names, without .nii.gz; several are channels of one volume."""
    mask: str = "dseg"
    """Ending of mask names in derivatives, without .nii.gz, such as label-lesion_mask."""
    classes: tuple[str, ...] | None = None
    """Class names, background first; None names them by the highest label: background, class_1, ..."""
    label: str | None = None
    """Column of participants.tsv whose values become a one-hot label of the participant."""
    plane: Plane = "axial"
    """Plane of the slices: stored, axial, coronal, sagittal."""


@dataclass(frozen=True)
class _Image:
    """One session's channels and mask."""

    subject: str
    name: str
    channels: tuple[Path, ...]
    mask: Path | None


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at names, the table of participants and headers.

    Raises:
        PackError: if images are missing, several masks fit one, or a participant is not in the table.
    """
    images = _images(source, options)
    names, labels = _participants(source, options, {one.subject for one in images})
    strata = {one.subject: labels.get(one.subject, ()) for one in images}
    split_of = draw_splits(
        strata, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=options.seed
    )

    def name_classes(found: tuple[int, ...]) -> tuple[str, ...]:
        return options.classes or infer_class_names(source, found)

    arguments = [
        (one, split_of[one.subject], labels.get(one.subject, ()), options.plane, options.classes) for one in images
    ]
    by = f"by participant{f', stratified by {options.label}' if options.label else ''}"
    return Survey(
        scan(_reading, arguments),
        class_names=name_classes,
        label_names=names,
        label_kind="multi-class",
        label_scopes="subject",
        split_rule=rule(options, by),
    )


def _images(source: Path, options: Options) -> list[_Image]:
    first = options.suffixes[0]
    masks: dict[str, list[Path]] = {}
    for path in sorted((source / "derivatives").rglob(f"sub-*_{options.mask}.nii.gz")):
        masks.setdefault(path.name.removesuffix(f"_{options.mask}.nii.gz"), []).append(path)
    found = []
    for folder in sorted(path for path in source.iterdir() if _PARTICIPANT.fullmatch(path.name)):
        for path in sorted(folder.rglob(f"{folder.name}*_{first}.nii.gz")):
            stem = path.name.removesuffix(f"_{first}.nii.gz")
            channels = tuple(path.with_name(f"{stem}_{suffix}.nii.gz") for suffix in options.suffixes)
            if missing := [channel for channel in channels if not channel.is_file()]:
                raise PackError(f"{missing[0]} does not exist; {path} needs it as a channel")
            # Masks are named after the session, or after the image itself.
            fitting = masks.get(stem, []) + masks.get(f"{stem}_{first}", [])
            if len(fitting) > 1:
                raise PackError(f"{fitting[0]} and {fitting[1]} are both masks of {path}: choose with the option mask")
            found.append(_Image(folder.name, stem, channels, fitting[0] if fitting else None))
    if not found:
        raise PackError(f"{source} holds no image sub-ID/**/sub-ID*_{first}.nii.gz; choose with the option suffixes")
    return found


def _participants(
    source: Path, options: Options, subjects: set[str]
) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
    """Return the values of the label's column, and each participant's one-hot vector."""
    if options.label is None:
        return (), {}
    table = source / "participants.tsv"
    values = {
        row["participant_id"]: row[options.label]
        for row in read_table(table, ("participant_id", options.label), delimiter="\t")
    }
    if missing := sorted(subjects - set(values)):
        raise PackError(f"{table} has no row for {missing[0]}.{did_you_mean(missing[0], values)}")
    names = tuple(sorted({value for value in values.values() if value not in _UNKNOWN}))
    return names, {subject: one_hot(None if value in _UNKNOWN else value, names) for subject, value in values.items()}


def _reading(
    image: _Image, split: str, labels: tuple[float, ...], plane: Plane, classes: tuple[str, ...] | None
) -> Reading:
    return volume_reading(
        [read_volume_header(path, plane) for path in image.channels],
        None if image.mask is None else read_volume_header(image.mask, plane),
        _translate,
        (classes,),
        subject=image.subject,
        volume=image.name,
        split=split,
        labels=labels,
    )


def _translate(path: Path, stored: npt.NDArray[Any], classes: tuple[str, ...] | None) -> npt.NDArray[np.uint8]:
    return translate_labels(path, stored, classes, None)
