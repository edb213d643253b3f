"""Batched augmentation: every random number from one CPU generator, every operation on the training device.

``draw`` takes the random numbers and ``apply`` is a pure function of them: a stage repeats bit for bit, and
resumes bit for bit from the saved state of its generator.

Shapes: B batch, C channels, H and W of a source slice, S side of the square output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor

from raysweep.data import resample, weighted_rows
from raysweep.data.augment_parameters import AugmentationParameters, draw, keep_whole, places

__all__ = ["AugmentationParameters", "Slices", "apply", "draw", "keep_whole", "places"]

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

    The order is crop and resize, flips, rotation, elastic displacement, brightness, contrast, gamma, blur,
    solarisation, bias field, noise, cutout.

    Args:
        slices: B tensors (C, H, W) float32, of any mix of shapes, intensities about [0, 1];
            nothing is clipped, but gamma takes negative intensities as 0.
        parameters: of B samples.
        size: S in pixels.
        masks: B tensors (H, W) of an integer type; they follow crop, flips, rotation and elastic displacement by
            nearest sampling; what comes in from outside is class 0, and cutout leaves them as they are.
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
            x = weighted_rows.crop_resize(slices, parameters.boxes, size, parameters.flips)
        else:
            x = resample.crop_resize_by_matmul(slices, parameters.boxes, size, device, parameters.flips)
        x = _move(x, parameters, "bilinear")
        x = _change_intensities(x, parameters)
        x = _disturb(x, parameters)
    if masks is None:
        return x
    y = resample.crop_resize_nearest(masks, parameters.boxes, size, parameters.flips).to(device, non_blocking=True)
    # float32 holds every label below 2^24 exactly
    return x, _move(y[:, None].float(), parameters, "nearest")[:, 0].long()


def _check(slices: Slices, parameters: AugmentationParameters, masks: Slices | None) -> None:
    B = len(parameters)
    if len(slices) != B or (masks is not None and len(masks) != B):
        given = f"{len(slices)} slices" + (f" and {len(masks)} masks" if masks is not None else "")
        raise ValueError(f"{given} given for the parameters of {B} samples; the numbers must be equal")
    boxes, shapes = parameters.boxes, _shapes(slices)
    inside = (boxes[:, :2] >= 0) & (boxes[:, 2:] >= 1) & (boxes[:, :2] + boxes[:, 2:] <= shapes)
    for i in (~inside.all(1)).nonzero()[:, 0].tolist():
        (y0, x0, h, w), (H, W) = boxes[i].tolist(), shapes[i].tolist()
        raise ValueError(
            f"crop y0={y0}, x0={x0}, h={h}, w={w} of sample {i} leaves its {H} x {W} slice; "
            "draw the parameters from the shapes of these slices"
        )
    if masks is not None and bool((differ := (_shapes(masks) != shapes).any(1)).any()):
        i = int(differ.nonzero()[0, 0])
        H, W = shapes[i].tolist()
        raise ValueError(f"mask {i} is {tuple(masks[i].shape)} but its slice is {H} x {W}")


def _shapes(slices: Slices) -> Tensor:
    """Return the height and width of each of B slices or masks, (B, 2) int64 on the CPU."""
    if isinstance(slices, Tensor):
        return torch.tensor(slices.shape[-2:]).expand(len(slices), 2)
    return torch.tensor([one.shape[-2:] for one in slices])


def _rows(selected: Tensor, x: Tensor) -> Tensor | None:
    """Return the indices of the selected samples on the device of ``x``, or None if there are none."""
    index = selected.nonzero()[:, 0]
    return index.to(x.device, non_blocking=True) if len(index) else None


def _move(x: Tensor, p: AugmentationParameters, mode: str) -> Tensor:
    if (rows := _rows(p.angle_deg != 0, x)) is not None:
        x[rows] = resample.rotate(x[rows], p.angle_deg[p.angle_deg != 0].to(x.device, non_blocking=True), mode)
    if (rows := _rows(p.elastic_px > 0, x)) is not None:
        field = torch.stack([_displacement(p, i, x.shape[-1]) for i in (p.elastic_px > 0).nonzero()[:, 0].tolist()])
        x[rows] = resample.displace(x[rows], field.to(x.device, non_blocking=True), mode)
    return x


def _displacement(p: AugmentationParameters, i: int, size: int) -> Tensor:
    """Return the elastic displacement of one sample, (2, S, S): y and x in output pixels, from a coarse random grid."""
    own = torch.Generator().manual_seed(int(p.field_seed[i]))
    coarse = torch.randn(2, p.elastic_cells + 1, p.elastic_cells + 1, generator=own)
    return resample.smooth_field(coarse, size) * p.elastic_px[i]


def _change_intensities(x: Tensor, p: AugmentationParameters) -> Tensor:
    """Apply jitter, blur and solarisation to (B, C, S, S), changing ``x`` in place where it can."""
    if bool((p.brightness != 1).any()) or bool((p.contrast != 1).any()):
        brightness, contrast = (t.to(x.device, non_blocking=True).view(-1, 1, 1, 1) for t in (p.brightness, p.contrast))
        # torchvision's two blends in one: with b = brightness * x, contrast * b + (1 - contrast) * mean(b).
        # The mean is over all channels, whose meaning is not known to be red, green and blue.
        mean = x.mean((1, 2, 3), keepdim=True)
        x.mul_(contrast * brightness).add_((1 - contrast) * brightness * mean)
    if (rows := _rows(p.gamma != 1, x)) is not None:
        _raise_to(x, rows, p.gamma[p.gamma != 1])
    if (rows := _rows(p.blur_sigma_px > 0, x)) is not None:
        sigma_px = p.blur_sigma_px[p.blur_sigma_px > 0]
        if x.device.type == "cpu":
            weighted_rows.blur_in_place(x, rows, sigma_px, p.blur_radius_px)
        else:
            x[rows] = resample.blur(x[rows], sigma_px.to(x.device, non_blocking=True), p.blur_radius_px)
    if (rows := _rows(p.solarise, x)) is not None:
        chosen = x[rows]
        x[rows] = torch.where(chosen >= p.solarise_threshold, 1 - chosen, chosen)
    return x


def _raise_to(x: Tensor, rows: Tensor, gamma: Tensor) -> None:
    """Raise some samples of (B, C, S, S) to a power each in place, negative intensities taken as 0.

    On a CPU by numpy's logarithm, sample after sample in the cache: three times as fast as torch's power of a tensor.
    """
    if x.device.type != "cpu":
        x[rows] = x[rows].clamp_(min=0).pow_(gamma.to(x.device, non_blocking=True).view(-1, 1, 1, 1))
        return
    with np.errstate(divide="ignore"):  # the logarithm of 0, whose exponential is 0 again
        for i, exponent in zip(rows.tolist(), gamma.tolist(), strict=True):
            sample = x[i].clamp_(min=0)
            np.log(sample.numpy(), out=sample.numpy())
            sample.mul_(exponent / math.log(2)).exp2_()


def _disturb(x: Tensor, p: AugmentationParameters) -> Tensor:
    """Apply bias field, noise and cutout to (B, C, S, S) in place.

    A generator of its own for each sample, so that its fields and noise do not depend on the rest of the batch.
    """
    size = x.shape[-1]
    for i in (p.bias_strength > 0).nonzero()[:, 0].tolist():
        own = torch.Generator().manual_seed(int(p.field_seed[i]) + 1)
        coefficients = (2 * torch.rand(resample.NUM_BIAS_TERMS, generator=own) - 1) * p.bias_strength[i]
        x[i] *= resample.bias_field(coefficients, size).to(x.device, non_blocking=True)
    for i in (p.noise_std > 0).nonzero()[:, 0].tolist():
        own = torch.Generator().manual_seed(int(p.noise_seed[i]))
        noise = torch.randn(x.shape[1:], generator=own).mul_(float(p.noise_std[i]))
        x[i] += noise.to(x.device, non_blocking=True)
    for i in (p.cutout[:, 2] > 0).nonzero()[:, 0].tolist():
        top, left, height, width = (p.cutout[i] * size).round().int().tolist()
        x[i, :, top : top + max(1, height), left : left + max(1, width)] = 0
    return x
