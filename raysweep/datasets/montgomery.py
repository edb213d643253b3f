"""Montgomery: 138 chest radiographs, 58 with tuberculosis; left and right lung segmented.

Files, in any sub-folder::

    CXR_png/MCUCXR_0001_0.png               the last digit says whether there is tuberculosis
    ManualMask/leftMask/MCUCXR_0001_0.png   one lung each
    ManualMask/rightMask/MCUCXR_0001_0.png

Every image is its own patient.

Source: Jaeger et al., Two public chest X-ray datasets for computer-aided screening of pulmonary diseases, 2014.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from raysweep.datasets import _rasters
from raysweep.datasets._images import ImageFile, image_readings
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.datasets._tables import find_one
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="138 chest radiographs; both lungs; tuberculosis or not",
    access="free download from the US National Library of Medicine (`MontgomerySet.zip`)",
    layout="`CXR_png/MCUCXR_NNNN_{0,1}.png`, `ManualMask/{leftMask,rightMask}/` with the same names",
    splits="drawn, stratified by tuberculosis",
)

_IMAGE = re.compile(r"MCUCXR_\d{4}_([01])\.png")
_CLASSES = {"merged": ("background", "lung"), "separate": ("background", "left_lung", "right_lung")}


class Options(DrawnSplits):
    """Options of the Montgomery packer."""

    lungs: Literal["merged", "separate"] = "merged"
    """Whether both lungs are one class."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the names and headers of the images.

    Raises:
        PackError: if an image or a mask is missing.
    """
    folder = find_one(source, "CXR_png")
    masks = find_one(source, "ManualMask")
    matches = {path: match for path in sorted(folder.iterdir()) if (match := _IMAGE.fullmatch(path.name))}
    if not matches:
        raise PackError(f"{folder} holds no image MCUCXR_NNNN_0.png or MCUCXR_NNNN_1.png")
    ill = {path.stem: float(match.group(1)) for path, match in matches.items()}
    split_of = draw_splits(
        ill, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=options.seed
    )
    images = []
    for path in matches:
        lungs = [masks / side / path.name for side in ("leftMask", "rightMask")]
        if missing := [str(lung) for lung in lungs if not lung.is_file()]:
            raise PackError(f"{missing[0]} does not exist; both lungs of {path} are needed")
        images.append(
            ImageFile(
                path=path,
                subject=path.stem,
                split=split_of[path.stem],
                volume=path.stem,
                labels=(ill[path.stem],),
                read_mask=_read_lungs,
                mask_arguments=(*lungs, options.lungs == "separate"),
            )
        )
    return Survey(
        image_readings(images, scan, as_grey=True),
        class_names=_CLASSES[options.lungs],
        label_names=("tuberculosis",),
        label_scopes="subject",
        split_rule=rule(options, "by image, stratified by tuberculosis"),
    )


def _read_lungs(left: Path, right: Path, separate: bool) -> npt.NDArray[np.uint8]:
    first, second = _rasters.read_binary(left), _rasters.read_binary(right)
    if first.shape != second.shape:
        raise PackError(f"{left} has {first.shape} pixels, {right} {second.shape}; they belong to one image")
    if separate and (first & second).any():
        raise PackError(f"{left} and {right} overlap; pack them with lungs: merged")
    return np.where(second, 2 if separate else 1, first).astype(np.uint8)
