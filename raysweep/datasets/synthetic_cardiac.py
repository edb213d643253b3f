"""Synthetic cardiac cine MRI in ACDC's layout: beating hearts to try studies on without any download."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from pydantic import Field

from raysweep.datasets import acdc
from raysweep.datasets._cardiac_phantom import Array, Cine, synthesise_cine
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.settings import Settings

RECIPE = 1
ABOUT = About(
    data="beating hearts in ACDC's layout",
    access="generated",
    layout="none; a folder named keeps the files",
    splits="patient number modulo 10: 1 test, 2 validation",
)


class Options(Settings):
    """Options of the synthetic cardiac data set."""

    patients: int = Field(20, ge=1)
    """Number of patients; patient n is the same whatever their number."""
    seed: int = Field(0, ge=0)
    """Seed of everything random."""
    slices: int = Field(5, ge=1, le=32)
    """Slices of each patient, from base to apex."""
    frames: int = Field(4, ge=2, le=64)
    """Time points of each cine; the first is end diastole."""
    size_px: tuple[int, int] = (96, 128)
    """Smallest and largest number of rows and of columns, in steps of 4."""
    cine: bool = True
    """Whether to pack the unlabelled frames too."""


def generate(folder: Path, options: Options) -> None:
    """Write the data set's files, laid out and named as ACDC's."""
    for number in range(1, options.patients + 1):
        cine = synthesise_cine(options.seed, number, acdc.GROUPS, options.slices, options.frames, options.size_px)
        _write_patient(folder / f"patient{number:03d}", cine)


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the data set's files as at ACDC's.

    Raises:
        PackError: if the folder holds other files than such a data set's.
    """
    return acdc.survey(source, acdc.Options(cine=options.cine), scan)


def _write_patient(folder: Path, cine: Cine) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = folder.name
    num_frames = len(cine.images)
    for frame in (0, cine.systole):
        stem = f"{name}_frame{frame + 1:02d}"
        _save(folder / f"{stem}.nii.gz", cine.images[frame], cine)
        _save(folder / f"{stem}_gt.nii.gz", cine.masks[frame], cine)
    _save(folder / f"{name}_4d.nii.gz", cine.images, cine)
    text = f"ED: 1\nES: {cine.systole + 1}\nGroup: {cine.group}\nNbFrame: {num_frames}\n"
    (folder / "Info.cfg").write_text(text, encoding="utf-8")


def _save(path: Path, array: Array, cine: Cine) -> None:
    """Write ([t,] z, y, x) as NIfTI's (x, y, z[, t])."""
    affine = np.diag([cine.spacing_mm, cine.spacing_mm, cine.slice_spacing_mm, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.T), affine)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
