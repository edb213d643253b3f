"""Batch normalisation over the rows of all ranks, in any network and without changing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Gather = Callable[[Tensor], list[Tensor]]
"""Gives a tensor of every rank, in the order of ranks."""


class SharedStatistics(TorchFunctionMode):
    """In this context, batch normalisation in training takes its statistics over the rows of all ranks.

    It stands in for ``torch.nn.functional.batch_norm``, to which every normalisation layer of torch and timm comes, so
    that networks keep their modules, hooks and states; torch's own synchronised layer is another module and needs GPUs.
    """

    def __init__(self, gather: Gather) -> None:
        super().__init__()
        self._gather = gather

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Pass everything on but batch normalisation in training."""
        if func is F.batch_norm:
            return _batch_norm(self._gather, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    gather: Gather,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    count, mean, variance = _statistics(gather, x)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1).clamp(min=1)).to(running_var.dtype), momentum)
    output: Tensor = _Normalise.apply(x, weight, bias, count, mean, (variance + eps).rsqrt(), gather)
    return output


@torch.no_grad()
def _statistics(gather: Gather, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many values of a channel all ranks have, and their mean and variance (C,), all float32.

    Each rank sends mean and squared deviations of its own rows, so that nothing cancels out.

    Source: Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample variances", equation 2.1.
    """
    axes = _all_but_channels(x)
    number = x.numel() // x.shape[1]
    if number:
        variance, mean = torch.var_mean(x.float(), axes, correction=0)
    else:
        mean = variance = x.new_zeros(x.shape[1], dtype=torch.float32)
    sent = torch.cat((mean, variance * number, mean.new_full((1,), number)))
    means, deviations, counts = torch.split(torch.stack(gather(sent)), [len(mean), len(mean), 1], 1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    return count, mean, (deviations + counts * (means - mean).square()).sum(0) / count


class _Normalise(torch.autograd.Function):
    """Normalisation by given statistics that follow from the rows of all ranks, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        count: Tensor,
        mean: Tensor,
        inverse_std: Tensor,
        gather: Gather,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, count, mean, inverse_std)
        ctx.has_bias, ctx.gather = bias is not None, gather
        scale = inverse_std if weight is None else inverse_std * weight.float()
        shift = -mean * scale if bias is None else bias.float() - mean * scale
        return (x.float() * _wide(scale, x) + _wide(shift, x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, count, mean, inverse_std = ctx.saved_tensors
        axes = _all_but_channels(x)
        g, unit = gradient.float(), (x.float() - _wide(mean, x)) * _wide(inverse_std, x)
        along_bias, along_weight = g.sum(axes), (g * unit).sum(axes)
        totals = torch.stack(ctx.gather(torch.stack((along_bias, along_weight)))).sum(0) / count
        scale = inverse_std if weight is None else inverse_std * weight.float()
        of_x = (g - _wide(totals[0], x) - unit * _wide(totals[1], x)) * _wide(scale, x)
        of_weight = None if weight is None else along_weight.to(weight.dtype)
        of_bias = along_bias.to(gradient.dtype if weight is None else weight.dtype) if ctx.has_bias else None
        return of_x.to(x.dtype), of_weight, of_bias, None, None, None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """Return (C,) values as they broadcast over (B, C, ...)."""
    return values.view(1, -1, *(1,) * (x.ndim - 2))
