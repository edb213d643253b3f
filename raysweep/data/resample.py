"""Resampling of whole batches: crop and resize, rotation, elastic displacement, blur, smooth fields.

Where a CPU has a faster way it is in ``weighted_rows``; what is here runs on every device.

Shapes: B batch, C channels, H and W of a source slice, S side of the square output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_resize_by_matmul(
    slices: Sequence[Tensor] | Tensor,
    boxes: Tensor,
    size: int,
    device: torch.device,
    flips: Tensor | None = None,
) -> Tensor:
    """Do what ``weighted_rows.crop_resize`` does as two batched matrix products, which keep a GPU busy.

    A stacked (B, C, H, W) tensor that is already on ``device`` is used where it lies; of slices elsewhere
    only the crops are copied, in one transfer.
    """
    if not (isinstance(slices, Tensor) and slices.device == device):
        slices, boxes = _stack_crops(slices, boxes, device)
    y0, x0, h, w = boxes.to(device, non_blocking=True).unbind(1)
    up_down, left_right = output_positions(size, len(slices), flips, device)
    rows = _resize_operator(y0, h, slices.shape[2], up_down)
    columns = _resize_operator(x0, w, slices.shape[3], left_right)
    return rows[:, None] @ slices @ columns[:, None].transpose(2, 3)


def _stack_crops(slices: Sequence[Tensor] | Tensor, boxes: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the crops zero-padded to one shape on ``device``, and their boxes in it."""
    height, width = int(boxes[:, 2].max()), int(boxes[:, 3].max())
    stack = torch.zeros(len(slices), slices[0].shape[0], height, width, pin_memory=device.type == "cuda")
    for i, (y0, x0, h, w) in enumerate(boxes.tolist()):
        stack[i, :, :h, :w] = slices[i][:, y0 : y0 + h, x0 : x0 + w]
    moved = boxes.clone()
    moved[:, :2] = 0
    return stack.to(device, non_blocking=True), moved


def output_positions(size: int, num: int, flips: Tensor | None, device: torch.device) -> Tensor:
    """Return (2, B, S): for rows and for columns, which pixel of the unmirrored result each output pixel is.

    Args:
        size: S.
        num: B.
        flips: (B, 2) bool on the CPU, whether the result is mirrored up-down and left-right; None for neither.
        device: where the positions are needed.
    """
    position = torch.arange(size, device=device).expand(2, num, size)
    if flips is None or not bool(flips.any()):
        return position
    mirrored = flips.t().to(device, non_blocking=True)[:, :, None]
    return torch.where(mirrored, size - 1 - position, position)


def _resize_operator(start: Tensor, length: Tensor, num_in: int, output: Tensor) -> Tensor:
    """Return (B, S, num_in) rows of the triangle filter for (B, S) output pixels, each summing to 1 within its crop."""
    scale = (length / output.shape[1])[:, None, None].float()
    position = torch.arange(num_in, device=start.device)
    inside = (position >= start[:, None]) & (position < (start + length)[:, None])
    from_start = (position - start[:, None] + 0.5)[:, None, :]
    centre = (output + 0.5)[:, :, None] * scale
    # Below one source pixel per output pixel the filter keeps the width of a source pixel: plain bilinear.
    weights = (1 - (from_start - centre).abs() / scale.clamp(min=1)).clamp_(min=0) * inside[:, None]
    return weights / weights.sum(2, keepdim=True)


def crop_resize_nearest(
    masks: Sequence[Tensor] | Tensor, boxes: Tensor, size: int, flips: Tensor | None = None
) -> Tensor:
    """Crop B masks (H, W) of an integer type to their boxes; resize them to (B, S, S) by nearest pixel, mirrored."""
    if not isinstance(masks, Tensor):
        own = [None] * len(boxes) if flips is None else list(torch.split(flips, 1))
        each = zip(masks, torch.split(boxes, 1), own, strict=True)
        return torch.cat([crop_resize_nearest(mask[None], box, size, flip) for mask, box, flip in each])
    y0, x0, h, w = boxes.to(masks.device, non_blocking=True)[:, :, None].unbind(1)
    up_down, left_right = 2 * output_positions(size, len(masks), flips, masks.device) + 1
    # Integer form of floor((i + 1/2) h / S): the pixel under the centre of output pixel i.
    rows, columns = y0 + up_down * h // (2 * size), x0 + left_right * w // (2 * size)
    sample = torch.arange(len(masks), device=masks.device)[:, None, None]
    return masks[sample, rows[:, :, None], columns[:, None, :]]


def rotate(x: Tensor, angle_deg: Tensor, mode: str) -> Tensor:
    """Rotate (B, C, S, S) about the centre, anticlockwise by (B,) degrees; what comes from outside is 0.

    Args:
        mode: 'bilinear' for images, 'nearest' for masks held as float32.
    """
    angle = torch.deg2rad(angle_deg.double())
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack((torch.stack((cos, -sin, zero), 1), torch.stack((sin, cos, zero), 1)), 1)
    grid = F.affine_grid(matrix.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode=mode, padding_mode="zeros", align_corners=False)


def displace(x: Tensor, displacement_px: Tensor, mode: str) -> Tensor:
    """Take each output pixel of (B, C, S, S) from where its displacement points; what comes from outside is 0.

    Args:
        x: the batch.
        displacement_px: (B, 2, S, S), y and x in pixels.
        mode: 'bilinear' for images, 'nearest' for masks held as float32.
    """
    identity = F.affine_grid(
        torch.eye(2, 3, device=x.device).expand(len(x), -1, -1), list(x.shape), align_corners=False
    )
    offset = displacement_px.flip(1).permute(0, 2, 3, 1) * (2 / x.shape[-1])  # grid_sample takes x before y
    return F.grid_sample(x, identity + offset, mode=mode, padding_mode="zeros", align_corners=False)


def smooth_field(coarse: Tensor, size: int) -> Tensor:
    """Return (..., S, S) smooth values through a coarse grid (..., n, n) of them, by bicubic interpolation."""
    flat = coarse.reshape(1, -1, *coarse.shape[-2:])
    fine = F.interpolate(flat, size=(size, size), mode="bicubic", align_corners=True)
    return fine.reshape(*coarse.shape[:-2], size, size)


_BIAS_DEGREE = 3
NUM_BIAS_TERMS = (_BIAS_DEGREE + 1) * (_BIAS_DEGREE + 2) // 2
"""Coefficients of a bias field."""


def bias_field(coefficients: Tensor, size: int) -> Tensor:
    """Return a smooth positive factor (S, S): the exponential of a polynomial of degree 3 in Legendre's basis.

    Args:
        coefficients: of P_i(y) P_j(x) with i + j up to 3, i the slower index.
        size: S.

    Source: Van Leemput et al. 1999, IEEE Transactions on Medical Imaging 18(10), section II, for the polynomial model.
    """
    axis = torch.linspace(-1, 1, size)
    basis = torch.stack((torch.ones(size), axis, (3 * axis**2 - 1) / 2, (5 * axis**3 - 3 * axis) / 2))
    terms = [(i, j) for i in range(_BIAS_DEGREE + 1) for j in range(_BIAS_DEGREE + 1 - i)]
    table = torch.zeros(_BIAS_DEGREE + 1, _BIAS_DEGREE + 1)
    for value, (i, j) in zip(coefficients, terms, strict=True):
        table[i, j] = value
    return torch.exp(basis.T @ table @ basis)


def blur(x: Tensor, sigma_px: Tensor, radius_px: int) -> Tensor:
    """Blur (B, C, S, S) with a Gaussian of (B,) sigma cut off at ``radius_px``; borders reflect.

    Sums of shifted copies: exact float32 in a fixed order on every device.
    """
    size = x.shape[-1]
    radius_px = min(radius_px, size - 1)
    offsets = torch.arange(radius_px + 1, device=x.device)
    weights = torch.exp(-0.5 * (offsets / sigma_px.to(x)[:, None]) ** 2)
    weights = weights / (2 * weights.sum(1, keepdim=True) - 1)  # offset 0, of weight 1, counts once
    weights = weights[:, :, None, None, None]
    last = size - 1
    reflected = last - (last - torch.arange(-radius_px, size + radius_px, device=x.device).abs()).abs()
    for axis in (2, 3):
        padded = x.index_select(axis, reflected)
        x = x * weights[:, 0]
        for offset in range(1, radius_px + 1):
            before, after = (padded.narrow(axis, radius_px + shift, size) for shift in (-offset, offset))
            x.addcmul_(before + after, weights[:, offset])
    return x


def blur_radius_px(max_sigma_px: float) -> int:
    """Return the radius that holds a Gaussian of ``max_sigma_px``: three standard deviations."""
    return max(1, math.ceil(3 * max_sigma_px))
