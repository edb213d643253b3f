"""JSRT + SCR: 247 chest radiographs, half with a lung nodule; lungs, heart and clavicles segmented.

Files, in any sub-folder::

    All247images/JPCLN001.IMG                      2048 x 2048, 12 bits in big-endian 16, no header; dark is bright
    scratch/fold1/masks/left lung/JPCLN001.gif     1024 x 1024; also right lung, heart, left clavicle, right clavicle
    scratch/fold2/masks/...

Clavicles lie over lungs. A mask therefore holds a bit for each structure (see MASK_ENCODINGS); with ``overlap: paint``
each pixel has one class instead, clavicles over heart over lungs. Intensities are turned over, so that bone is bright.
Masks are enlarged to the image by repeating pixels; with ``resolution: masks`` the image is reduced to the masks' size
by the mean of 2 x 2 pixels, exact in 32-bit floats.

Source: Shiraishi et al., AJR 2000 (JSRT); van Ginneken et al., Medical Image Analysis 2006 (SCR and its two folds).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import Bucket
from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets import _rasters
from raysweep.datasets._splits import DrawnValidation, draw_splits, rule
from raysweep.datasets._survey import About, Reading, Scan, Survey, intensity_range
from raysweep.datasets._tables import find_one
from raysweep.errors import PackError

RECIPE = 1
ABOUT = About(
    data="247 chest radiographs; lungs, heart, clavicles, which overlap; nodule or not",
    access="register at db.jsrt.or.jp for the images; download the SCR masks from UMC Utrecht",
    layout="`All247images/*.IMG`, `fold1/masks/{left lung,right lung,heart,left clavicle,right clavicle}/`, `fold2/`",
    splits="SCR's folds: one trains, `test_fold` tests; validation drawn from the training fold",
)

_HIGHEST = 4095
_SPACING_MM = 0.175
_PARTS = ("left lung", "right lung", "heart", "left clavicle", "right clavicle")
_MERGED: dict[str, tuple[str, ...]] = {"lungs": _PARTS[:2], "heart": _PARTS[2:3], "clavicles": _PARTS[3:]}
_SEPARATE: dict[str, tuple[str, ...]] = {name.replace(" ", "_"): (name,) for name in _PARTS}


class Options(DrawnValidation):
    """Options of the JSRT packer."""

    test_fold: Literal[1, 2] = 2
    """Fold of SCR that is the test split."""
    structures: Literal["merged", "separate"] = "merged"
    """merged: lungs, heart, clavicles; separate: both sides are structures of their own."""
    overlap: Literal["keep", "paint"] = "keep"
    """keep: structures overlap, a bit each; paint: one class a pixel, later structures over earlier ones."""
    resolution: Literal["images", "masks"] = "images"
    """Whether masks are enlarged to the images, or images reduced to the masks by a mean."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at names and sizes of images and masks.

    Raises:
        PackError: if an image is not a square of 16-bit pixels, or a mask is missing.
    """
    folds = {number: find_one(source, f"fold{number}") for number in (1, 2)}
    images = {path.stem: path for path in sorted(source.rglob("*.IMG"))}
    fold_of = {name: _fold_of(name, folds) for name in images}
    if not images:
        raise PackError(f"{source} holds no image JPCLN001.IMG, in whatever sub-folder")
    training = {name: "JPCLN" in name for name, fold in fold_of.items() if fold != options.test_fold}
    split_of = draw_splits(training, val_fraction=options.val_fraction, seed=options.seed)
    structures = _MERGED if options.structures == "merged" else _SEPARATE
    readings = [
        _reading(path, folds[fold_of[name]], split_of.get(name, "test"), structures, options)
        for name, path in images.items()
    ]
    return Survey(
        readings,
        class_names=("background", *structures),
        label_names=("nodule",),
        label_scopes="subject",
        mask_encoding="bits" if options.overlap == "keep" else "index",
        split_rule=rule(options, "from the other, stratified by nodule", f"SCR's fold {options.test_fold} is test"),
    )


def _fold_of(name: str, folds: dict[int, Path]) -> int:
    found = [number for number, folder in folds.items() if (folder / "masks" / "heart" / f"{name}.gif").is_file()]
    if len(found) != 1:
        raise PackError(
            f"{name} has a heart in {len(found)} of the folders {', '.join(map(str, folds.values()))}, not in one"
        )
    return found[0]


def _reading(path: Path, fold: Path, split: str, structures: dict[str, tuple[str, ...]], options: Options) -> Reading:
    side = round((path.stat().st_size / 2) ** 0.5)
    if side < 1 or side * side * 2 != path.stat().st_size:
        raise PackError(f"{path} has {path.stat().st_size} bytes, which is no square of 16-bit pixels: copy it again")
    masks = tuple(tuple(fold / "masks" / part / f"{path.stem}.gif" for part in parts) for parts in structures.values())
    missing = [str(one) for parts in masks for one in parts if not one.is_file()]
    if missing:
        raise PackError(f"{missing[0]} does not exist; {path} needs it")
    size = _rasters.read_header(masks[0][0], as_grey=True).height
    if side % size:
        raise PackError(f"{path} has {side} x {side} pixels, its masks {size} x {size}: not a whole multiple")
    factor = side // size
    is_reduced = options.resolution == "masks" and factor > 1
    packed = size if is_reduced else side
    header = SliceHeader(
        bucket=Bucket(1, packed, packed, "float32" if is_reduced else "uint16"),
        subject=path.stem,
        volume=path.stem,
        split=split,
        has_mask=True,
        annotated=True,
        spacing_mm=(_SPACING_MM * (factor if is_reduced else 1),) * 2,
        labels=(float("JPCLN" in path.stem),),
    )
    return Reading(
        _read, (path, masks, side, packed, options.overlap == "keep"), (header,), memory_bytes=20 * side * side
    )


def _read(
    path: Path, masks: tuple[tuple[Path, ...], ...], side: int, packed: int, keep_overlap: bool
) -> Iterator[SlicePixels]:
    stored = np.fromfile(path, ">u2").reshape(side, side)
    if stored.max() > _HIGHEST:
        raise PackError(f"{path} holds {stored.max()}; its 12 bits end at {_HIGHEST}. It is no image of JSRT.")
    image = (_HIGHEST - stored).astype(np.uint16)
    if packed != side:
        factor = side // packed
        image = image.reshape(packed, factor, packed, factor).mean(axis=(1, 3), dtype=np.float32)
    low, high = intensity_range(image)
    yield SlicePixels(image, _merge(masks, packed, keep_overlap), low, high)


def _merge(masks: tuple[tuple[Path, ...], ...], packed: int, keep_overlap: bool) -> npt.NDArray[np.uint8]:
    merged = np.zeros((packed, packed), np.uint8)
    for code, parts in enumerate(masks):
        for part in parts:
            inside = _rasters.read_binary(part)
            if inside.shape[0] != inside.shape[1] or packed % len(inside):
                raise PackError(f"{part} has {inside.shape} pixels, which its image is no multiple of")
            inside = inside.repeat(packed // len(inside), 0).repeat(packed // len(inside), 1)
            merged = np.where(inside, merged | 1 << code if keep_overlap else code + 1, merged).astype(np.uint8)
    return merged
