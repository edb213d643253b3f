"""DRIVE: 40 colour photographs of the retina, vessels segmented, with the camera's field of view.

Files, in any sub-folder::

    training/images/21_training.tif   training/1st_manual/21_manual1.gif   training/mask/21_training_mask.gif
    test/images/01_test.tif           test/1st_manual/01_manual1.gif       test/mask/01_test_mask.gif

Pixels outside the field of view hold the ignore label, 255: they neither train nor score. With
``outside: background`` they are background instead. Without ``1st_manual`` test images are left unlabelled.

Source: Staal et al., Ridge-based vessel segmentation in color images of the retina, IEEE TMI 2004.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from raysweep.data.pack_format import IGNORE_LABEL
from raysweep.datasets import _rasters
from raysweep.datasets._images import ImageFile, image_readings
from raysweep.datasets._splits import DrawnValidation, draw_splits, rule
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.datasets._tables import find_one
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="40 photographs of the retina; vessels inside the camera's field of view",
    access="join the DRIVE challenge at grand-challenge.org",
    layout="`{training,test}/images/NN_*.tif`, `1st_manual/NN_manual1.gif`, `mask/NN_*_mask.gif`",
    splits="official 20/20; validation drawn from the training images",
)


class Options(DrawnValidation):
    """Options of the DRIVE packer."""

    val_fraction: float = Field(0.2, ge=0, lt=1)
    """Share of the 20 training images that is drawn into the validation split."""
    outside: Literal["ignore", "background"] = "ignore"
    """What pixels outside the field of view are."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at names and headers of the images.

    Raises:
        PackError: if an image lacks its field of view, or a training image its vessels.
    """
    images = [image for part in ("training", "test") for image in _images(find_one(source, part), part, options)]
    training = [one.subject for one in images if one.split == "train"]
    drawn = draw_splits(dict.fromkeys(training, 0), val_fraction=options.val_fraction, seed=options.seed)
    images = [replace(one, split=drawn.get(one.subject, one.split)) for one in images]
    return Survey(
        image_readings(images, scan),
        class_names=("background", "vessel"),
        ignore_label=IGNORE_LABEL if options.outside == "ignore" else None,
        split_rule=rule(options, "from the training images", "official folders"),
    )


def _images(folder: Path, part: str, options: Options) -> list[ImageFile]:
    found = []
    for path in sorted((folder / "images").glob(f"*_{part}.tif")):
        number = path.name.split("_")[0]
        vessels = folder / "1st_manual" / f"{number}_manual1.gif"
        view = folder / "mask" / f"{number}_{part}_mask.gif"
        has_mask = vessels.is_file()
        needed = view if has_mask else vessels
        if not needed.is_file() and (has_mask or part == "training"):
            raise PackError(f"{needed} does not exist; {path} needs it")
        found.append(
            ImageFile(
                path=path,
                subject=number,
                split="train" if part == "training" else "test",
                volume=path.stem,
                read_mask=_read_vessels if has_mask else None,
                mask_arguments=(vessels, view, options.outside == "ignore") if has_mask else (),
            )
        )
    if not found:
        raise PackError(f"{folder / 'images'} holds no image NN_{part}.tif")
    return found


def _read_vessels(vessels: Path, view: Path, ignore_outside: bool) -> npt.NDArray[np.uint8]:
    classes = _rasters.read_binary(vessels).astype(np.uint8)
    inside = _rasters.read_binary(view)
    if classes.shape != inside.shape:
        raise PackError(f"{vessels} has {classes.shape} pixels, {view} {inside.shape}; they belong to one image")
    return np.where(inside, classes, IGNORE_LABEL if ignore_outside else 0).astype(np.uint8)
