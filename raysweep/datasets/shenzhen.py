"""Shenzhen: 662 chest radiographs, 336 with tuberculosis.

Files, in any sub-folder::

    CXR_png/CHNCXR_0001_0.png    the last digit says whether there is tuberculosis; grey, some stored as RGB
    ClinicalReadings/...         not needed

Every image is its own patient. A benchmark's authors published lists (463, 65, 134 images): put
``ShenzenCXR_{train,valid,test}_data.txt`` beside the images and pack with ``lists: benchmark``.

Source: Jaeger et al., Two public chest X-ray datasets for computer-aided screening of pulmonary diseases, 2014.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from raysweep.datasets._images import ImageFile, files_below, image_readings
from raysweep.datasets._splits import DrawnSplits, draw_splits, rule, splits_of_lists
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.datasets._tables import find_one
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="662 chest radiographs; tuberculosis or not",
    access="free download from the US National Library of Medicine (`ChinaSet_AllFiles.zip`)",
    layout="`CXR_png/CHNCXR_NNNN_{0,1}.png`, in any sub-folder",
    splits="drawn 70:10:20, stratified; or `lists: benchmark`",
)

_IMAGE = re.compile(r"CHNCXR_\d{4}_([01])\.png")
_LISTS = {
    split: f"ShenzenCXR_{name}_data.txt" for split, name in (("train", "train"), ("val", "valid"), ("test", "test"))
}


class Options(DrawnSplits):
    """Options of the Shenzhen packer."""

    val_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the images drawn into the validation split."""
    lists: Literal["drawn", "benchmark"] = "drawn"
    """benchmark: the lists of a benchmark's authors, put beside the images, name all splits."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the names and headers of the images.

    Raises:
        PackError: if there is none, or lists do not fit them.
    """
    files = files_below(source, (".png",))
    matches = {name: match for name in files if (match := _IMAGE.fullmatch(name))}
    found = {name: files[name] for name in matches}
    if not found:
        raise PackError(f"{source} holds no image CHNCXR_NNNN_0.png or CHNCXR_NNNN_1.png, in whatever sub-folder")
    has_tuberculosis = {name: float(match.group(1)) for name, match in matches.items()}
    if options.lists == "benchmark":
        split_of = splits_of_lists({split: find_one(source, name) for split, name in _LISTS.items()})
        if missing := sorted(set(split_of) - set(found)):
            raise PackError(f"{source} lacks {len(missing)} of the listed images, the first {missing[0]}")
    else:
        split_of = draw_splits(
            has_tuberculosis, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=options.seed
        )
    images = [
        ImageFile(
            path=path,
            subject=path.stem,
            split=split_of[name],
            volume=path.stem,
            labels=(has_tuberculosis[name],),
        )
        for name, path in found.items()
        if name in split_of
    ]
    drawn = rule(options, "by image, stratified by tuberculosis")
    return Survey(
        image_readings(images, scan, as_grey=True),
        label_names=("tuberculosis",),
        label_scopes="subject",
        split_rule=drawn if options.lists == "drawn" else "lists of a benchmark's authors",
    )
