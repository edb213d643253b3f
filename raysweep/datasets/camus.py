"""CAMUS: echocardiography of 500 patients in two views; left ventricle, its wall and the left atrium segmented.

Files (the NIfTI release), in any sub-folder::

    database_nifti/patient0001/patient0001_2CH_ED.nii.gz    patient0001_2CH_ED_gt.nii.gz    also ES, and 4CH
    database_nifti/patient0001/patient0001_2CH_half_sequence.nii.gz    ..._half_sequence_gt.nii.gz, where released
    database_nifti/patient0001/Info_2CH.cfg                 ED: 1, ES: 18, ImageQuality: Good, ...
    database_split/subgroup_training.txt  subgroup_validation.txt  subgroup_testing.txt

Frames count from 1, as the settings do. Rows run along the NIfTI y axis, columns along x, as stored. A view is a
volume. Without the folder of split files, splits are drawn by patient, stratified by image quality.

Source: Leclerc et al., Deep Learning for Segmentation Using an Open Large-Scale Dataset in 2D Echocardiography,
IEEE TMI 2019.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets._labels import check_classes
from raysweep.datasets._nifti import NiftiHeader, read_header, read_pixels
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule, splits_of_lists
from raysweep.datasets._survey import About, Array, Reading, Scan, Survey, intensity_range
from raysweep.datasets._tables import one_hot, read_text
from raysweep.errors import PackError, did_you_mean

RECIPE = 1
CLASS_NAMES = ("background", "left_ventricle", "myocardium", "left_atrium")
QUALITIES = ("Good", "Medium", "Poor")
ABOUT = About(
    data="echocardiography of 500 patients, two views; left ventricle, wall, left atrium; image quality",
    access="register at humanheart-project.creatis.insa-lyon.fr; the NIfTI release",
    layout="`patientNNNN/patientNNNN_{2CH,4CH}_{ED,ES}{,_gt}.nii.gz`, `..._half_sequence{,_gt}.nii.gz`, `Info_*.cfg`, "
    "`subgroup_*.txt`",
    splits="official subgroups where they are there, else drawn by patient",
)

_PATIENT = re.compile(r"patient\d{4}")
_VIEWS = ("2CH", "4CH")
_LISTS = {"train": "subgroup_training.txt", "val": "subgroup_validation.txt", "test": "subgroup_testing.txt"}


class Options(DrawnSplits):
    """Options of the CAMUS packer."""

    sequences: bool = True
    """Whether to include the frames between end diastole and end systole."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the settings, the lists and the headers.

    Raises:
        PackError: if files are missing, unreadable or contradict each other.
    """
    folders = [path for path in sorted(source.rglob("patient*")) if path.is_dir() and _PATIENT.fullmatch(path.name)]
    if not folders:
        raise PackError(f"{source} holds no folder patientNNNN, in whatever sub-folder")
    views = [(folder, view, _settings(folder / f"Info_{view}.cfg")) for folder in folders for view in _VIEWS]
    quality = {folder.name: info["ImageQuality"] for folder, _, info in views}
    lists = {split: found[0] for split, name in _LISTS.items() if (found := sorted(source.rglob(name)))}
    if lists:
        split_of = splits_of_lists(lists)
        if missing := sorted(set(quality) - set(split_of)):
            raise PackError(
                f"{lists.popitem()[1].parent} lists {len(missing)} patients in no subgroup, such as {missing[0]}"
            )
    else:
        split_of = draw_splits(
            quality, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=options.seed
        )
    arguments = [(folder, view, info, split_of[folder.name], options.sequences) for folder, view, info in views]
    per_view = scan(_readings, arguments)
    return Survey(
        [reading for one in per_view for reading in one],
        class_names=CLASS_NAMES,
        label_names=tuple(f"quality_{name.lower()}" for name in QUALITIES),
        label_kind="multi-class",
        label_scopes="volume",
        split_rule="official subgroups" if lists else rule(options, "by patient, stratified by image quality"),
    )


def _settings(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in read_text(path).splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, _, value in pairs}
    for name in ("ED", "ES"):
        if not found.get(name, "").isdigit():
            raise PackError(f"{path} has no number under {name}; frames count from 1 there")
    quality = found.get("ImageQuality", "")
    if quality not in QUALITIES:
        raise PackError(f"{path} has the image quality {quality!r}.{did_you_mean(quality, QUALITIES)}")
    return found


def _readings(folder: Path, view: str, info: dict[str, str], split: str, sequences: bool) -> list[Reading]:
    marked = {int(info[name]): folder / f"{folder.name}_{view}_{name}.nii.gz" for name in ("ED", "ES")}
    labels = one_hot(info["ImageQuality"], QUALITIES)
    readings = []
    for frame, path in sorted(marked.items()):
        header = read_header(path, 2)
        mask = _mask_of(path, header)
        if mask is None:
            raise PackError(f"{path} has no mask beside it, {path.name.replace('.nii', '_gt.nii')}")
        one = _slice(header, folder.name, view, split, frame, labels, has_mask=True)
        readings.append(Reading(_read, (header, mask, (None,)), (one,)))
    sequence = folder / f"{folder.name}_{view}_half_sequence.nii.gz"
    if sequences and sequence.is_file():
        header = read_header(sequence, 3)
        mask = _mask_of(sequence, header)
        frames = tuple(frame for frame in _frames_of(header, info) if frame not in marked)
        slices = tuple(
            _slice(header, folder.name, view, split, frame, labels, has_mask=mask is not None) for frame in frames
        )
        places = tuple(frame - min(marked) for frame in frames)
        readings += [Reading(_read, (header, mask, places), slices)] if slices else []
    return readings


def _frames_of(header: NiftiHeader, info: dict[str, str]) -> range:
    """Return the frames of the half cycle, which lies between end diastole and end systole whichever is first."""
    first = min(int(info["ED"]), int(info["ES"]))
    return range(first, first + header.shape[2])


def _mask_of(path: Path, header: NiftiHeader) -> Path | None:
    mask = path.with_name(path.name.replace(".nii", "_gt.nii"))
    if not mask.is_file():
        return None
    shape = read_header(mask, len(header.shape)).shape
    if shape != header.shape:
        raise PackError(f"{mask} has the shape {shape}, its image {path.name} has {header.shape}")
    return mask


def _slice(
    header: NiftiHeader, patient: str, view: str, split: str, frame: int, labels: tuple[float, ...], *, has_mask: bool
) -> SliceHeader:
    return SliceHeader(
        bucket=header.bucket,
        subject=patient,
        volume=f"{patient}_{view}",
        split=split,
        has_mask=has_mask,
        annotated=has_mask,
        frame=frame,
        spacing_mm=header.spacing_mm,
        labels=labels,
    )


def _read(header: NiftiHeader, mask: Path | None, places: tuple[int | None, ...]) -> Iterator[SlicePixels]:
    images = read_pixels(header.path)
    masks = None if mask is None else check_classes(mask, read_pixels(mask), CLASS_NAMES)
    for place in places:
        image = _plane(images, place)
        low, high = intensity_range(image)
        yield SlicePixels(image, None if masks is None else _plane(masks, place), low, high)


def _plane(array: Array, place: int | None) -> Array:
    plane: Array = (array if place is None else array[:, :, place]).T
    return plane
