"""What happens to each sample of an augmented batch: the random numbers, drawn from one CPU generator.

Shapes: B batch, H and W of a source slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysweep.data import resample
from raysweep.settings import Augmentation

Array = NDArray[np.float64]

_NUM_CROP_TRIES = 10
_MAX_SEED = 2**53  # a float64 draws every integer below it


@dataclass(frozen=True)
class AugmentationParameters:
    """What happens to each of B samples; every tensor is on the CPU, and (B,) unless it says otherwise."""

    y0: Tensor
    """First row of the crop in the source slice, int64."""
    x0: Tensor
    """First column of the crop, int64."""
    h: Tensor
    """Height of the crop in source pixels, int64."""
    w: Tensor
    """Width of the crop in source pixels, int64."""
    flip_x: Tensor
    """Left-right flip, bool."""
    flip_y: Tensor
    """Up-down flip, bool."""
    angle_deg: Tensor
    """Anticlockwise rotation after crop and flips, float32; 0 for none."""
    brightness: Tensor
    """Brightness factor, float32; 1 for none."""
    contrast: Tensor
    """Contrast factor, float32; 1 for none."""
    gamma: Tensor
    """Gamma exponent, float32; 1 for none."""
    blur_sigma_px: Tensor
    """Standard deviation of the blur in output pixels, float32; 0 for none."""
    blur_radius_px: int
    """Radius of the blur kernel, the same for all samples."""
    noise_std: Tensor
    """Standard deviation of the noise, float32; 0 for none."""
    noise_seed: Tensor
    """Seed of the sample's own noise, int64."""
    solarise: Tensor
    """Solarisation, bool."""
    solarise_threshold: float
    """Intensity from which solarisation inverts."""
    elastic_px: Tensor
    """Standard deviation of the elastic displacement in output pixels, float32; 0 for none."""
    elastic_cells: int
    """Cells of the elastic grid along each axis."""
    bias_strength: Tensor
    """Largest coefficient of the log bias field, float32; 0 for none."""
    field_seed: Tensor
    """Seed of the sample's own elastic and bias fields, int64."""
    cutout: Tensor
    """(B, 4) float32, the erased rectangle as shares of the view: top, left, height, width; height 0 for none."""

    def __len__(self) -> int:
        return len(self.y0)

    def part(self, rows: slice) -> AugmentationParameters:
        """Return the parameters of some of the samples."""
        own: dict[str, Any] = {key: value[rows] for key, value in self.__dict__.items() if isinstance(value, Tensor)}
        return replace(self, **own)

    @property
    def boxes(self) -> Tensor:
        """(B, 4) int64: y0, x0, h, w."""
        return torch.stack((self.y0, self.x0, self.h, self.w), 1)

    @property
    def flips(self) -> Tensor:
        """(B, 2) bool: up-down, left-right."""
        return torch.stack((self.flip_y, self.flip_x), 1)


def draw(settings: Augmentation, shapes: Tensor, generator: torch.Generator) -> AugmentationParameters:
    """Draw the parameters of one view of B slices; how many numbers are taken depends on B and the settings alone.

    The arithmetic is numpy's: for a few dozen numbers each operation takes a fifth of torch's time.

    Args:
        settings: ranges and probabilities.
        shapes: (B, 2) int, H and W of each slice.
        generator: on the CPU.
    """
    u = torch.rand(len(shapes), 20, generator=generator, dtype=torch.float64).numpy()
    y0, x0, h, w = torch.from_numpy(_draw_boxes(settings, shapes.numpy(), generator)).unbind(1)
    jitter = u[:, 3] < settings.jitter_p
    log_gamma = math.log1p(settings.gamma)
    sigma_min, sigma_max = settings.blur_sigma_px
    return AugmentationParameters(
        y0=y0,
        x0=x0,
        h=h,
        w=w,
        flip_x=torch.from_numpy(u[:, 0] < settings.flip_p),
        flip_y=torch.from_numpy(u[:, 1] < settings.vertical_flip_p),
        angle_deg=_float32(settings.rotation_deg * (2 * u[:, 2] - 1)),
        brightness=_where(jitter, 1 + settings.brightness * (2 * u[:, 4] - 1), 1),
        contrast=_where(jitter, 1 + settings.contrast * (2 * u[:, 5] - 1), 1),
        gamma=_where(jitter, np.exp(log_gamma * (2 * u[:, 6] - 1)), 1),
        blur_sigma_px=_where(u[:, 7] < settings.blur_p, sigma_min + (sigma_max - sigma_min) * u[:, 8], 0),
        blur_radius_px=resample.blur_radius_px(sigma_max),
        noise_std=_where(u[:, 9] < settings.noise_p, settings.noise_std, 0),
        noise_seed=torch.from_numpy((u[:, 10] * _MAX_SEED).astype(np.int64)),
        solarise=torch.from_numpy(u[:, 11] < settings.solarise_p),
        solarise_threshold=settings.solarise_threshold,
        elastic_px=_where(u[:, 12] < settings.elastic_p, settings.elastic_px, 0),
        elastic_cells=settings.elastic_cells,
        bias_strength=_where(u[:, 13] < settings.bias_p, settings.bias_strength, 0),
        field_seed=torch.from_numpy((u[:, 14] * _MAX_SEED).astype(np.int64)),
        cutout=_draw_cutouts(settings, u[:, 15:20]),
    )


def keep_whole(shapes: Tensor) -> AugmentationParameters:
    """Return the parameters that only resize (B, 2) slices: what evaluation uses."""
    B = len(shapes)
    no, one, zero = torch.zeros(B, dtype=torch.bool), torch.ones(B), torch.zeros(B)
    origin = torch.zeros(B, dtype=torch.int64)
    h, w = shapes.long().unbind(1)
    return AugmentationParameters(
        y0=origin,
        x0=origin,
        h=h,
        w=w,
        flip_x=no,
        flip_y=no,
        angle_deg=zero,
        brightness=one,
        contrast=one,
        gamma=one,
        blur_sigma_px=zero,
        blur_radius_px=1,
        noise_std=zero,
        noise_seed=origin,
        solarise=no,
        solarise_threshold=1.0,
        elastic_px=zero,
        elastic_cells=1,
        bias_strength=zero,
        field_seed=origin,
        cutout=torch.zeros(B, 4),
    )


def places(parameters: AugmentationParameters) -> Tensor:
    """Return where each view lies in its slice, (B, 2, 3) float32.

    It is the affine map from a point of the view, (y, x, 1) with y and x from 0 to 1, to pixels of the slice, in which
    pixel k covers k to k + 1. Elastic displacement is left out.
    """
    p = parameters
    angle = torch.deg2rad(p.angle_deg.double())
    cos, sin = angle.cos(), angle.sin()
    # From the view to the crop: rotate about the centre, then undo the flips; then scale to the crop's box.
    rotation = torch.stack((torch.stack((cos, sin), 1), torch.stack((-sin, cos), 1)), 1)
    sign = 1 - 2 * torch.stack((p.flip_y, p.flip_x), 1).double()
    sides = torch.stack((p.h, p.w), 1).double()
    linear = (sides * sign)[:, :, None] * rotation
    centre = torch.stack((p.y0, p.x0), 1).double() + sides / 2
    offset = centre - linear.sum(2) / 2
    return torch.cat((linear, offset[:, :, None]), 2).float()


def _float32(values: Array) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _where(condition: NDArray[np.bool_], value: Array | float, otherwise: float) -> Tensor:
    return _float32(np.where(condition, value, otherwise))


def _draw_boxes(settings: Augmentation, shapes: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.int64]:
    """Return (B, 4) boxes distributed as torchvision's RandomResizedCrop draws them.

    Ten tries of an area share and a log-uniform aspect ratio; if none fits, the largest central crop of an
    allowed ratio.
    """
    u = torch.rand(2 * _NUM_CROP_TRIES + 2, len(shapes), generator=generator, dtype=torch.float64).numpy()
    H, W = shapes.astype(np.float64).T
    whole = np.stack((np.zeros_like(H), np.zeros_like(W), H, W), 1)
    if settings.crop_scale == (1, 1):
        return whole.astype(np.int64)
    (scale_min, scale_max), (ratio_min, ratio_max) = settings.crop_scale, settings.crop_ratio
    area = H * W * (scale_min + (scale_max - scale_min) * u[:_NUM_CROP_TRIES])
    log_min, log_max = math.log(ratio_min), math.log(ratio_max)
    ratio = np.exp(log_min + (log_max - log_min) * u[_NUM_CROP_TRIES:-2])
    h, w = np.sqrt(area / ratio).round(), np.sqrt(area * ratio).round()
    fits = (h > 0) & (h <= H) & (w > 0) & (w <= W)
    first = fits.argmax(0)[None]  # the first that fits
    h, w = np.take_along_axis(h, first, 0)[0], np.take_along_axis(w, first, 0)[0]
    y0, x0 = np.floor(u[-2] * (H - h + 1)), np.floor(u[-1] * (W - w + 1))
    central_h = np.where(ratio_min > W / H, (W / ratio_min).round().clip(min=1), H)
    central_w = np.where(ratio_max < W / H, (H * ratio_max).round().clip(min=1), W)
    central = np.stack(((H - central_h) // 2, (W - central_w) // 2, central_h, central_w), 1)
    drawn = np.where(fits.any(0)[:, None], np.stack((y0, x0, h, w), 1), central)
    if settings.crop_p < 1:
        cropped = torch.rand(len(shapes), generator=generator, dtype=torch.float64).numpy() < settings.crop_p
        drawn = np.where(cropped[:, None], drawn, whole)
    return drawn.astype(np.int64)


def _draw_cutouts(settings: Augmentation, u: Array) -> Tensor:
    """Return (B, 4) rectangles inside the unit square, distributed as torchvision's RandomErasing draws them."""
    (scale_min, scale_max), (ratio_min, ratio_max) = settings.cutout_scale, settings.cutout_ratio
    area = scale_min + (scale_max - scale_min) * u[:, 1]
    ratio = np.exp(math.log(ratio_min) + (math.log(ratio_max) - math.log(ratio_min)) * u[:, 2])
    h, w = np.sqrt(area * ratio).clip(max=1), np.sqrt(area / ratio).clip(max=1)
    drawn = np.stack((u[:, 3] * (1 - h), u[:, 4] * (1 - w), h, w), 1)
    return _where(u[:, :1] < settings.cutout_p, drawn, 0)
