"""Dead leaves: synthetic images of overlapping shapes without labels, a non-medical domain to pretrain on.

Shapes of random kind, grey level and texture cover each other; their sizes follow the 1/r^3 law that gives
the images the scale invariance of natural ones.

Source: Lee, Mumford & Huang, Occlusion Models for Natural Images, IJCV 2001; as pretraining data: Baradad et
al., Learning to See by Looking at Noise, NeurIPS 2021.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from raysweep.datasets import folder as folder_dataset
from raysweep.datasets._rasters import Array, write_png
from raysweep.datasets._survey import About, Scan, Survey
from raysweep.settings import Settings

RECIPE = 1
ABOUT = About(
    data="images of overlapping shapes, unlabelled",
    access="generated",
    layout="none; a folder named keeps the files",
    splits="all train",
)

_NUM_LEAVES = 500
_SMALLEST_RADIUS_PX = 2.5
_LARGEST_RADIUS = 0.45  # of the image's side


class Options(Settings):
    """Options of the dead leaves."""

    images: int = Field(256, ge=1)
    """Number of images; image n is the same whatever their number."""
    size: int = Field(96, ge=16, le=2048)
    """Rows and columns of each image in pixels."""
    seed: int = Field(0, ge=0)
    """Seed of everything random."""


def generate(folder: Path, options: Options) -> None:
    """Write the images as 8-bit grey PNG files into ``folder``/images."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number in range(options.images):
        rng = np.random.default_rng([options.seed, number])
        write_png(images / f"leaves{number:05d}.png", synthesise_leaves(rng, options.size))


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the images as at a folder of images.

    Raises:
        PackError: if the folder holds other files than such images.
    """
    return folder_dataset.survey(source, folder_dataset.Options(), scan)


def synthesise_leaves(rng: np.random.Generator, size: int) -> Array:
    """Draw one image, (size, size) uint8."""
    image = np.full((size, size), rng.uniform(0.2, 0.8), np.float32)
    for radius in _radii(rng, size):
        _draw_leaf(rng, image, float(radius))
    image = 0.5 * image + 0.125 * sum(np.roll(image, shift, axis) for axis in (0, 1) for shift in (-1, 1))
    image += rng.normal(0, rng.uniform(0.005, 0.04), image.shape)
    return np.asarray(np.clip(np.rint(image * 255), 0, 255), np.uint8)


def _radii(rng: np.random.Generator, size: int) -> Array:
    """Draw radii in pixels with density proportional to 1/r^3, by inversion."""
    smallest, largest = _SMALLEST_RADIUS_PX, _LARGEST_RADIUS * size
    share = rng.uniform(0, 1, _NUM_LEAVES)
    radii: Array = (smallest**-2 + share * (largest**-2 - smallest**-2)) ** -0.5
    return radii


def _draw_leaf(rng: np.random.Generator, image: Array, radius: float) -> None:
    size = len(image)
    centre = rng.uniform(0, size, 2)
    first = np.maximum(np.floor(centre - 1.5 * radius), 0).astype(int)
    last = np.minimum(np.ceil(centre + 1.5 * radius) + 1, size).astype(int)
    window = image[first[0] : last[0], first[1] : last[1]]
    y = np.arange(first[0], last[0])[:, None] - centre[0]
    x = np.arange(first[1], last[1])[None, :] - centre[1]
    angle = rng.uniform(0, np.pi)
    u = (np.cos(angle) * x + np.sin(angle) * y) / radius
    v = (np.cos(angle) * y - np.sin(angle) * x) / (radius * rng.uniform(0.4, 1.0))
    window[:] = np.where(_is_inside(rng, u, v), _fill(rng, u, v, radius), window)


def _is_inside(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Return where a shape of random kind lies: an ellipse, a rectangle, a triangle or a ring."""
    inside: Array
    match int(rng.integers(4)):
        case 0:
            inside = np.hypot(u, v) < 1
        case 1:
            inside = np.maximum(np.abs(u), np.abs(v)) < 0.9
        case 2:
            inside = (v > -0.6) & (v + 1.7 * np.abs(u) < 1)
        case _:
            inside = np.abs(np.hypot(u, v) - 0.75) < 0.25
    return inside


def _fill(rng: np.random.Generator, u: Array, v: Array, radius: float) -> Array:
    """Return a grey level with a gradient, and often stripes or grain."""
    gradient = rng.normal(0, 0.12, 2)
    grey: Array = rng.uniform(0.02, 0.98) + gradient[0] * u + gradient[1] * v
    texture = int(rng.integers(3))
    if texture == 1:
        periods = rng.uniform(1, max(1.5, radius / 3))  # stripes of at least three pixels
        grey = grey + rng.uniform(0.03, 0.2) * np.sin(2 * np.pi * periods * u + rng.uniform(0, 6))
    elif texture == 2:
        grey = grey + rng.uniform(0.02, 0.12) * rng.standard_normal(grey.shape)
    return grey
