"""Resizing and blurring on a CPU: weighted sums of rows, then of columns as the rows of the transposed image.

A filter reaches a few pixels, so each row of the output is a sum of a few whole rows, which lie together in memory:
what embedding tables have fast kernels for. The order of a sum is fixed, whatever the batch and the number of threads.

Shapes: B batch, C channels, H and W of a source slice, S side of the square output, K taps of the filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from raysweep.data.resample import output_positions

_PIXELS_TOGETHER = 2**16
"""Pixels of the output made in one go: enough to spread the cost of a call, few enough to stay in the cache."""
_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class _Taps:
    """For each output row, the source rows it is a sum of."""

    index: Tensor
    """(B, S, K) int32, source row."""
    weight: Tensor
    """(B, S, K) float32, summing to 1 over K."""

    def __getitem__(self, samples: slice) -> _Taps:
        return _Taps(self.index[samples], self.weight[samples])


def crop_resize(slices: Sequence[Tensor] | Tensor, boxes: Tensor, size: int, flips: Tensor | None = None) -> Tensor:
    """Crop each slice to its box and resize it by antialiased bilinear interpolation.

    Args:
        slices: B tensors (C, H, W) float32, of any mix of shapes, on the CPU.
        boxes: (B, 4) int64: first row, first column, height and width in pixels.
        size: S.
        flips: (B, 2) bool, whether to mirror the result up-down and left-right; None for neither.

    Returns:
        (B, C, S, S) float32.
    """
    B = len(slices)
    order = boxes[:, 3].argsort(stable=True)  # crops of about the same width share a canvas
    boxes, members = boxes[order], order.tolist()
    output = output_positions(size, B, None if flips is None else flips[order], boxes.device).reshape(2 * B, size)
    taps = _triangle_taps(boxes[:, 2:].t().reshape(2 * B), output)
    rows, columns = taps[:B], taps[B:]
    out = torch.empty(B, slices[0].shape[0], size, size)
    together = max(1, _PIXELS_TOGETHER // size**2)
    for first in range(0, B, together):
        some = slice(first, first + together)
        crops = _crops([slices[i] for i in members[some]], boxes[some].tolist())
        resized = _sums(_transposed(_sums(crops, rows[some])), columns[some])
        out.numpy()[members[some]] = _transposed(resized).numpy()
    return out


def _crops(slices: Sequence[Tensor], boxes: Sequence[Sequence[int]]) -> Tensor:
    """Return crops (N, C, h, w) of the largest height and width; what lies beyond a smaller crop is left unwritten."""
    height, width = max(box[2] for box in boxes), max(box[3] for box in boxes)
    canvas = torch.empty(len(slices), slices[0].shape[0], height, width)
    target = canvas.numpy()
    for i, (one, (y0, x0, h, w)) in enumerate(zip(slices, boxes, strict=True)):
        target[i, :, :h, :w] = one.numpy()[:, y0 : y0 + h, x0 : x0 + w]
    return canvas


def _triangle_taps(length: Tensor, output: Tensor) -> _Taps:
    """Return the taps of antialiased bilinear interpolation.

    Args:
        length: (B,) int64, number of source pixels.
        output: (B, S) int64, output pixels.
    """
    scale = (length / output.shape[1])[:, None].double()
    centre = (output + 0.5) * scale
    # Below one source pixel per output pixel the filter keeps the width of a source pixel: plain bilinear.
    support = scale.clamp(min=1)
    lowest = (centre - support + 0.5).floor_().clamp_(min=0)
    taps = torch.arange(2 * int(support.max().ceil()) + 1, dtype=torch.int32)
    index, last = lowest.int()[:, :, None] + taps, (length - 1).int()[:, None, None]
    distance = (lowest + 0.5 - centre).float()[:, :, None] + taps
    weight = torch.sub(support.float()[:, :, None], distance.abs_(), out=distance).clamp_(min=0)
    weight.masked_fill_(index > last, 0)
    # Tap after tap, so that those of weight 0, which wider filters of the batch bring about, change no bit.
    total = sum(weight.unbind(2)[1:], start=weight[:, :, 0])
    return _Taps(torch.minimum(index, last, out=index), weight.div_(total[:, :, None]))


def blur_in_place(x: Tensor, chosen: Tensor, sigma_px: Tensor, radius_px: int) -> None:
    """Blur some samples of (B, C, S, S) with Gaussians cut off at ``radius_px``; borders reflect.

    Args:
        x: the batch, contiguous; changed.
        chosen: (N,) int64, which samples.
        sigma_px: (N,) float32, above 0, of each.
        radius_px: the same for all.
    """
    S = x.shape[-1]
    members, taps = chosen.tolist(), _gaussian_taps(sigma_px, min(radius_px, S - 1), S)
    together = max(1, _PIXELS_TOGETHER // S**2)
    for first in range(0, len(members), together):
        some, own = members[first : first + together], taps[first : first + together]
        blurred = _transposed(_sums(_transposed(_sums(x, own, some)), own))
        x.numpy()[some] = blurred.numpy()


def _gaussian_taps(sigma_px: Tensor, radius_px: int, size: int) -> _Taps:
    offsets = torch.arange(-radius_px, radius_px + 1, dtype=torch.int32)
    weight = torch.exp(-0.5 * (offsets / sigma_px[:, None]) ** 2)
    weight /= weight.sum(1, keepdim=True)
    last = size - 1
    reflected = last - (last - (torch.arange(size, dtype=torch.int32)[:, None] + offsets).abs()).abs()
    return _Taps(reflected.expand(len(sigma_px), -1, -1), weight[:, None].expand(-1, size, -1))


def _sums(x: Tensor, taps: _Taps, chosen: list[int] | None = None) -> Tensor:
    """Return (N, C, S, W), the sums of rows of (B, C, H, W) for N samples: the chosen ones, or else all of them."""
    _, C, H, W = x.shape
    N, S, K = taps.index.shape
    sample = torch.arange(N) if chosen is None else torch.tensor(chosen)
    plane = (sample[:, None] * C + torch.arange(C)).int() * H
    index = taps.index[:, None] + plane[:, :, None, None]
    weight = taps.weight[:, None].expand(N, C, S, K)
    rows = F.embedding_bag(index.view(-1, K), x.reshape(-1, W), mode="sum", per_sample_weights=weight.reshape(-1, K))
    return rows.view(N, C, S, W)


def _transposed(x: Tensor) -> Tensor:
    """Return (B, C, W, S) for (B, C, S, W).

    A few rows at a time: the strided reads of a whole image fall into the same few sets of the first cache.
    """
    B, C, S, W = x.shape
    out = torch.empty(B, C, W, S)
    source, target = x.numpy(), out.numpy()
    for first in range(0, S, _ROWS_AT_ONCE):
        last = first + _ROWS_AT_ONCE
        target[..., first:last] = source[:, :, first:last].swapaxes(2, 3)
    return out
