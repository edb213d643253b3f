"""ACDC: cine cardiac MRI of 150 patients, left and right ventricle segmented at end diastole and end systole.

Files, in any sub-folder of the source (the official ``training/`` and ``testing/``, or none)::

    patient001/Info.cfg                      Group: DCM, the diagnosis
    patient001/patient001_4d.nii.gz          the whole cine, (x, y, z, t)
    patient001/patient001_frame01.nii.gz     a labelled frame, equal to the cine's first
    patient001/patient001_frame01_gt.nii.gz  its mask

Frames keep ACDC's numbers, which count from 1. Rows run along the NIfTI y axis, columns along x, as stored.

Source: Bernard et al., Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation and
Diagnosis, IEEE TMI 2018.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets._labels import check_classes
from raysweep.datasets._nifti import NiftiHeader, read_header, read_pixels, slice_of
from raysweep.datasets._survey import About, Reading, Scan, Survey, intensity_range
from raysweep.errors import PackError, did_you_mean
from raysweep.settings import Settings

RECIPE = 1
ABOUT = About(
    data="cine cardiac MRI of 150 patients; right ventricle, myocardium, left ventricle at two frames; diagnosis",
    access="register at the ACDC challenge's site of CREATIS, Lyon (humanheart-project.creatis.insa-lyon.fr)",
    layout="`patientNNN/patientNNN_frameFF.nii.gz`, `..._frameFF_gt.nii.gz`, `patientNNN_4d.nii.gz`, `Info.cfg`, in "
    "any sub-folder",
    splits="patient number modulo 10: 1 test, 2 validation",
)
CLASS_NAMES = ("background", "right_ventricle", "myocardium", "left_ventricle")
GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")
"""Diagnoses: normal, infarction, dilated and hypertrophic cardiomyopathy, abnormal right ventricle."""

_FRAME = re.compile(r"patient\d+_frame(\d+)(_gt)?\.nii(\.gz)?")
_CINE = re.compile(r"patient\d+_4d\.nii(\.gz)?")
_PATIENT = re.compile(r"patient(\d+)")


class Options(Settings):
    """Options of the ACDC packer."""

    cine: bool = True
    """Whether to include the unlabelled frames, for pretraining."""


@dataclass
class _Patient:
    """The files of one patient."""

    number: int
    folder: Path
    frames: dict[int, Path] = field(default_factory=dict)
    masks: dict[int, Path] = field(default_factory=dict)
    cine: Path | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def split(self) -> str:
        return {1: "test", 2: "val"}.get(self.number % 10, "train")


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at ACDC: patients 1, 11, 21... are the test split, 2, 12, 22... the validation split, the rest train.

    Raises:
        PackError: if files are missing, unreadable or contradict each other.
    """
    per_patient = scan(_readings, [(patient, options.cine) for patient in _patients(source)])
    readings = [reading for one in per_patient for reading in one]
    if not readings:
        raise PackError(f"{source} holds no labelled frame; with cine: true its unlabelled frames are packed")
    return Survey(
        readings,
        class_names=CLASS_NAMES,
        label_names=GROUPS,
        label_kind="multi-class",
        label_scopes="subject",
        split_rule="patient number modulo 10: 1 test, 2 validation, else train",
    )


def _patients(source: Path) -> list[_Patient]:
    patients: dict[int, _Patient] = {}
    for folder in sorted(source.rglob("patient*")):
        match = _PATIENT.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        number = int(match.group(1))
        if number in patients:
            raise PackError(f"patient {number} occurs twice, in {patients[number].folder} and {folder}: remove one")
        patients[number] = _files_of(number, folder)
    if not patients:
        raise PackError(
            f"{source} holds no folder patientNNN; ACDC lies there as patient001/patient001_frame01.nii.gz, "
            "in any sub-folder"
        )
    return [patients[number] for number in sorted(patients)]


def _files_of(number: int, folder: Path) -> _Patient:
    patient = _Patient(number, folder)
    for path in sorted(folder.iterdir()):
        if match := _FRAME.fullmatch(path.name):
            kind = patient.masks if match.group(2) else patient.frames
            if int(match.group(1)) in kind:
                raise PackError(f"{path} occurs twice, as .nii and as .nii.gz: remove one of them")
            kind[int(match.group(1))] = path
        elif _CINE.fullmatch(path.name):
            patient.cine = path
    for frame, mask in patient.masks.items():
        if frame not in patient.frames:
            raise PackError(f"{mask} is the mask of frame {frame}, whose image is missing in {folder}")
    if not patient.frames and patient.cine is None:
        raise PackError(f"{folder} holds neither a frame nor a cine (patientNNN_4d.nii.gz)")
    return patient


def _readings(patient: _Patient, cine: bool) -> list[Reading]:
    labels = _labels(patient.folder / "Info.cfg")
    readings = []
    for frame, path in sorted(patient.frames.items()):
        mask = patient.masks.get(frame)
        if mask is None and not cine:
            continue
        header = read_header(path, 3)
        if mask is not None:
            _check_mask_header(header, mask)
        slices = _slices(patient, header, [frame], labels, annotated=mask is not None)
        readings.append(Reading(_read_frame, (path, mask), slices))
    if cine and patient.cine is not None:
        header = read_header(patient.cine, 4)
        num_frames = header.shape[3]
        missing = [frame for frame in patient.frames if not 1 <= frame <= num_frames]
        if missing:
            path = patient.frames[missing[0]]
            raise PackError(f"{path} is frame {missing[0]} of {patient.cine}, which has {num_frames}")
        frames = [frame for frame in range(1, num_frames + 1) if frame not in patient.frames]
        if frames:
            slices = _slices(patient, header, frames, labels, annotated=False)
            readings.append(Reading(_read_cine, (patient.cine, tuple(frames)), slices))
    return readings


def _slices(
    patient: _Patient, header: NiftiHeader, frames: list[int], labels: tuple[float, ...], *, annotated: bool
) -> tuple[SliceHeader, ...]:
    return tuple(
        SliceHeader(
            bucket=header.bucket,
            subject=patient.name,
            volume=patient.name,
            split=patient.split,
            has_mask=annotated,
            annotated=annotated,
            frame=frame,
            slice_number=z,
            spacing_mm=header.spacing_mm,
            labels=labels,
        )
        for frame in frames
        for z in range(header.shape[2])
    )


def _labels(info: Path) -> tuple[float, ...]:
    """Return the diagnosis as a one-hot vector, or NaN where the file does not say."""
    unknown = (math.nan,) * len(GROUPS)
    if not info.is_file():
        return unknown
    text = info.read_text(encoding="utf-8", errors="replace")
    match = re.search(r"^\s*Group\s*:\s*(\S+)", text, flags=re.MULTILINE)
    if match is None:
        return unknown
    group = match.group(1)
    if group not in GROUPS:
        raise PackError(f"{info} names the group {group!r}.{did_you_mean(group, GROUPS)} Allowed: {', '.join(GROUPS)}.")
    return tuple(float(name == group) for name in GROUPS)


def _check_mask_header(image: NiftiHeader, mask: Path) -> None:
    shape = read_header(mask, 3).shape
    if shape != image.shape:
        raise PackError(f"{mask} has the shape {shape}, its image {image.path.name} has {image.shape}")


def _read_frame(path: Path, mask_path: Path | None) -> Iterator[SlicePixels]:
    image = read_pixels(path)
    low, high = intensity_range(image)
    masks = None if mask_path is None else check_classes(mask_path, read_pixels(mask_path), CLASS_NAMES)
    for z in range(image.shape[2]):
        yield SlicePixels(slice_of(image, z), None if masks is None else slice_of(masks, z), low, high)


def _read_cine(path: Path, frames: tuple[int, ...]) -> Iterator[SlicePixels]:
    cine = read_pixels(path)
    for frame in frames:
        low, high = intensity_range(cine[..., frame - 1])
        for z in range(cine.shape[2]):
            yield SlicePixels(slice_of(cine, z, frame - 1), None, low, high)
