"""Batched augmentation: every random number from one CPU generator, every operation on the training device.

``draw`` takes the random numbers and ``apply`` is a pure function of them: a stage repeats bit for bit, and
resumes bit for bit from the saved state of its generator.

Shapes: B batch, C channels, H and W of a source slice, S side of the square output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from raysweep.data import resample
from raysweep.settings import Augmentation

_NUM_CROP_TRIES = 10
_MAX_SEED = 2**53  # a float64 draws every integer below it


@dataclass(frozen=True)
class AugmentationParameters:
    """What happens to each of B samples; every tensor is (B,) on the CPU."""

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

    def __len__(self) -> int:
        return len(self.y0)

    @property
    def boxes(self) -> Tensor:
        """(B, 4) int64: y0, x0, h, w."""
        return torch.stack((self.y0, self.x0, self.h, self.w), 1)


def draw(settings: Augmentation, shapes: Tensor, generator: torch.Generator) -> AugmentationParameters:
    """Draw the parameters of one view of B slices; how many numbers are taken depends on B alone.

    Args:
        settings: ranges and probabilities.
        shapes: (B, 2) int, H and W of each slice.
        generator: on the CPU.
    """
    u = torch.rand(len(shapes), 12, generator=generator, dtype=torch.float64)
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
    )


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
    drawn = torch.stack((y0, x0, h, w), 1)
    return torch.where(fits.any(0)[:, None], drawn, torch.stack(central, 1)).long()


Slices = Sequence[Tensor] | Tensor


@overload
def apply(
    slices: Slices, parameters: AugmentationParameters, size: int, *, device: torch.device | str | None = None
) -> Tensor: ...


@overload
def apply(
    slices: Slices,
    parameters: AugmentationParameters,
    size: int,
    *,
    masks: Slices,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]: ...


@torch.no_grad()
def apply(
    slices: Slices,
    parameters: AugmentationParameters,
    size: int,
    *,
    masks: Slices | None = None,
    device: torch.device | str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Augment B slices into one batch.

    The order is crop and resize, flips, rotation, brightness, contrast, gamma, blur, solarisation, noise.

    Args:
        slices: B tensors (C, H, W) float32, of any mix of shapes, intensities about [0, 1];
            nothing is clipped, but gamma takes negative intensities as 0.
        parameters: of B samples.
        size: S in pixels.
        masks: B tensors (H, W) of an integer type; they follow crop, flips and rotation by nearest sampling,
            and what rotation brings in from outside is class 0.
        device: where the work is done and the batch lies; the device of the slices by default.

    Returns:
        (B, C, S, S) float32, and with masks also (B, S, S) int64.

    Raises:
        ValueError: if slices, masks and parameters differ in number, or a crop leaves its slice.
    """
    # An allocation names the device in full (cuda:0 for cuda), so that it can equal that of the slices.
    device = torch.empty(0, device=device if device is not None else slices[0].device).device
    _check(slices, parameters, masks)
    with torch.autocast(device.type, enabled=False):
        if device.type == "cpu":
            x = resample.crop_resize(slices, parameters.boxes, size)
        else:
            x = resample.crop_resize_by_matmul(slices, parameters.boxes, size, device)
        x = _flip_rotate(x, parameters, "bilinear")
        x = _change_intensities(x, parameters)
    if masks is None:
        return x
    y = resample.crop_resize_nearest(masks, parameters.boxes, size).to(device)
    # float32 holds every label below 2^24 exactly
    return x, _flip_rotate(y[:, None].float(), parameters, "nearest")[:, 0].long()


def _check(slices: Slices, parameters: AugmentationParameters, masks: Slices | None) -> None:
    B = len(parameters)
    if len(slices) != B or (masks is not None and len(masks) != B):
        given = f"{len(slices)} slices" + (f" and {len(masks)} masks" if masks is not None else "")
        raise ValueError(f"{given} given for the parameters of {B} samples; the numbers must be equal")
    for i, (y0, x0, h, w) in enumerate(parameters.boxes.tolist()):
        H, W = slices[i].shape[-2:]
        if min(y0, x0) < 0 or min(h, w) < 1 or y0 + h > H or x0 + w > W:
            raise ValueError(
                f"crop y0={y0}, x0={x0}, h={h}, w={w} of sample {i} leaves its {H} x {W} slice; "
                "draw the parameters from the shapes of these slices"
            )
        if masks is not None and masks[i].shape != (H, W):
            raise ValueError(f"mask {i} is {tuple(masks[i].shape)} but its slice is {H} x {W}")


def _rows(selected: Tensor, x: Tensor) -> Tensor | None:
    """Return the indices of the selected samples on the device of ``x``, or None if there are none."""
    index = selected.nonzero()[:, 0]
    return index.to(x.device) if len(index) else None


def _flip_rotate(x: Tensor, p: AugmentationParameters, mode: str) -> Tensor:
    for selected, axis in ((p.flip_x, 3), (p.flip_y, 2)):
        if (rows := _rows(selected, x)) is not None:
            x[rows] = x[rows].flip(axis)
    if (rows := _rows(p.angle_deg != 0, x)) is not None:
        x[rows] = resample.rotate(x[rows], p.angle_deg[p.angle_deg != 0].to(x.device), mode)
    return x


def _change_intensities(x: Tensor, p: AugmentationParameters) -> Tensor:
    """Apply jitter, blur, solarisation and noise to (B, C, S, S), changing ``x`` in place where it can."""
    if bool((p.brightness != 1).any()) or bool((p.contrast != 1).any()):
        brightness, contrast = (t.to(x.device).view(-1, 1, 1, 1) for t in (p.brightness, p.contrast))
        # torchvision's two blends in one: with b = brightness * x, contrast * b + (1 - contrast) * mean(b).
        # The mean is over all channels, whose meaning is not known to be red, green and blue.
        mean = x.mean((1, 2, 3), keepdim=True)
        x.mul_(contrast * brightness).add_((1 - contrast) * brightness * mean)
    if (rows := _rows(p.gamma != 1, x)) is not None:
        gamma = p.gamma[p.gamma != 1].to(x.device).view(-1, 1, 1, 1)
        x[rows] = x[rows].clamp_(min=0).pow_(gamma)
    if (rows := _rows(p.blur_sigma_px > 0, x)) is not None:
        sigma_px = p.blur_sigma_px[p.blur_sigma_px > 0].to(x.device)
        x[rows] = resample.blur(x[rows], sigma_px, p.blur_radius_px)
    if (rows := _rows(p.solarise, x)) is not None:
        chosen = x[rows]
        x[rows] = torch.where(chosen >= p.solarise_threshold, 1 - chosen, chosen)
    for i in (p.noise_std > 0).nonzero()[:, 0].tolist():
        # A generator of its own for each sample, so that its noise does not depend on the rest of the batch.
        own = torch.Generator().manual_seed(int(p.noise_seed[i]))
        noise = torch.randn(x.shape[1:], generator=own).mul_(float(p.noise_std[i]))
        x[i] += noise.to(x.device)
    return x
