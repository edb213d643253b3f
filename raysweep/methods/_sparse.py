"""Convolutional networks on slices with holes: masked cells neither give nor take, as in sparse convolution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_WITH_NEIGHBOURS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@contextmanager
def sparse(encoder: nn.Module, visible: Tensor) -> Iterator[None]:
    """Make an encoder's forward passes see the visible cells alone.

    After every convolution and pooling, masked cells are 0; batch normalisation sees visible cells alone.

    Args:
        encoder: a convolutional network.
        visible: (B, h, w) bool, on the grid of its coarsest feature map or any grid that divides all others.

    Source: Tian et al. 2023, arXiv:2301.03580, section 3.1.
    """
    handles = []
    for module in encoder.modules():
        if isinstance(module, _WITH_NEIGHBOURS):
            handles.append(module.register_forward_hook(_Erase(visible)))
        elif isinstance(module, nn.BatchNorm2d):
            gather = _Gather(visible)
            handles += [module.register_forward_pre_hook(gather), module.register_forward_hook(gather.scatter)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def spread(visible: Tensor, height: int, width: int) -> Tensor:
    """Return (B, height, width) bool: the cells of a finer or equal grid."""
    y, x = (
        torch.arange(n, device=visible.device) * old // n
        for n, old in zip((height, width), visible.shape[1:], strict=True)
    )
    return visible[:, y][:, :, x]


class _Erase:
    def __init__(self, visible: Tensor) -> None:
        self.visible = visible

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * spread(self.visible, *output.shape[2:])[:, None].to(output.dtype)


class _Gather:
    def __init__(self, visible: Tensor) -> None:
        self.visible = visible
        self.where = visible

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = inputs
        self.where = spread(self.visible, *x.shape[2:])
        cells = x.permute(0, 2, 3, 1)[self.where]
        return (cells[:, :, None, None],)

    def scatter(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        canvas = output.new_zeros(*self.where.shape, output.shape[1])
        canvas[self.where] = output[:, :, 0, 0]
        return canvas.permute(0, 3, 1, 2)
