"""What happens to each sample of an augmented batch: the random numbers, drawn from one CPU generator.

Shapes: B batch, H and W of a source slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from raysweep.data import resample
from raysweep.settings import Augmentation

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


def draw(settings: Augmentation, shapes: Tensor, generator: torch.Generator) -> AugmentationParameters:
    """Draw the parameters of one view of B slices; how many numbers are taken depends on B and the settings alone.

    Args:
        settings: ranges and probabilities.
        shapes: (B, 2) int, H and W of each slice.
        generator: on the CPU.
    """
    u = torch.rand(len(shapes), 20, generator=generator, dtype=torch.float64)
    y0, x0, h, w = _draw_boxes(settings, shapes, generator).unbind(1)
    jitter = u[:, 3] < settings.jitter_p
    log_gamma = math.log1p(settings.gamma)
    sigma_min, sigma_max = settings.blur_sigma_px
    return AugmentationParameters(
        y0=y0,
        x0=x0,
        h=h,
        w=w,
        flip_x=u[:, 0] < settings.flip_p,
        flip_y=u[:, 1] < settings.vertical_flip_p,
        angle_deg=(settings.rotation_deg * (2 * u[:, 2] - 1)).float(),
        brightness=_where(jitter, 1 + settings.brightness * (2 * u[:, 4] - 1), 1),
        contrast=_where(jitter, 1 + settings.contrast * (2 * u[:, 5] - 1), 1),
        gamma=_where(jitter, torch.exp(log_gamma * (2 * u[:, 6] - 1)), 1),
        blur_sigma_px=_where(u[:, 7] < settings.blur_p, sigma_min + (sigma_max - sigma_min) * u[:, 8], 0),
        blur_radius_px=resample.blur_radius_px(sigma_max),
        noise_std=_where(u[:, 9] < settings.noise_p, torch.full_like(u[:, 9], settings.noise_std), 0),
        noise_seed=(u[:, 10] * _MAX_SEED).long(),
        solarise=u[:, 11] < settings.solarise_p,
        solarise_threshold=settings.solarise_threshold,
        elastic_px=_where(u[:, 12] < settings.elastic_p, torch.full_like(u[:, 12], settings.elastic_px), 0),
        elastic_cells=settings.elastic_cells,
        bias_strength=_where(u[:, 13] < settings.bias_p, torch.full_like(u[:, 13], settings.bias_strength), 0),
        field_seed=(u[:, 14] * _MAX_SEED).long(),
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


def _where(condition: Tensor, value: Tensor, otherwise: float) -> Tensor:
    return torch.where(condition, value, otherwise).float()


def _draw_boxes(settings: Augmentation, shapes: Tensor, generator: torch.Generator) -> Tensor:
    """Return (B, 4) int64 boxes distributed as torchvision's RandomResizedCrop draws them.

    Ten tries of an area share and a log-uniform aspect ratio; if none fits, the largest central crop of an
    allowed ratio.
    """
    u = torch.rand(2 * _NUM_CROP_TRIES + 2, len(shapes), generator=generator, dtype=torch.float64)
    H, W = shapes.double().unbind(1)
    if settings.crop_scale == (1, 1):
        return torch.stack((torch.zeros_like(H), torch.zeros_like(W), H, W), 1).long()
    (scale_min, scale_max), (ratio_min, ratio_max) = settings.crop_scale, settings.crop_ratio
    area = H * W * (scale_min + (scale_max - scale_min) * u[:_NUM_CROP_TRIES])
    log_min, log_max = math.log(ratio_min), math.log(ratio_max)
    ratio = torch.exp(log_min + (log_max - log_min) * u[_NUM_CROP_TRIES:-2])
    h, w = torch.sqrt(area / ratio).round(), torch.sqrt(area * ratio).round()
    fits = (h > 0) & (h <= H) & (w > 0) & (w <= W)
    first = fits.int().argmax(0, keepdim=True)  # the first maximum
    h, w = h.gather(0, first)[0], w.gather(0, first)[0]
    y0, x0 = (u[-2] * (H - h + 1)).floor(), (u[-1] * (W - w + 1)).floor()
    central_h = torch.where(ratio_min > W / H, (W / ratio_min).round().clamp(min=1), H)
    central_w = torch.where(ratio_max < W / H, (H * ratio_max).round().clamp(min=1), W)
    central = ((H - central_h) // 2, (W - central_w) // 2, central_h, central_w)
    drawn = torch.where(fits.any(0)[:, None], torch.stack((y0, x0, h, w), 1), torch.stack(central, 1))
    if settings.crop_p < 1:
        whole = torch.stack((torch.zeros_like(H), torch.zeros_like(W), H, W), 1)
        cropped = torch.rand(len(shapes), generator=generator, dtype=torch.float64) < settings.crop_p
        drawn = torch.where(cropped[:, None], drawn, whole)
    return drawn.long()


def _draw_cutouts(settings: Augmentation, u: Tensor) -> Tensor:
    """Return (B, 4) rectangles inside the unit square, distributed as torchvision's RandomErasing draws them."""
    (scale_min, scale_max), (ratio_min, ratio_max) = settings.cutout_scale, settings.cutout_ratio
    area = scale_min + (scale_max - scale_min) * u[:, 1]
    ratio = torch.exp(math.log(ratio_min) + (math.log(ratio_max) - math.log(ratio_min)) * u[:, 2])
    h, w = torch.sqrt(area * ratio).clamp(max=1), torch.sqrt(area / ratio).clamp(max=1)
    drawn = torch.stack((u[:, 3] * (1 - h), u[:, 4] * (1 - w), h, w), 1)
    return torch.where((u[:, :1] < settings.cutout_p), drawn, 0.0).float()
