"""Projectors and predictors: multi-layer perceptrons in the forms that papers use."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from raysweep.lazy import F, nn, torch

if TYPE_CHECKING:
    from torch import Tensor


def mlp(
    widths: Sequence[int], *, norm: bool = True, last: Literal["linear", "norm", "plain norm"] = "linear"
) -> nn.Sequential:
    """Return linear layers between ``widths`` with ReLU between them.

    Args:
        widths: of the input, of each hidden layer, and of the output.
        norm: whether hidden layers have batch normalisation, which makes their bias superfluous.
        last: what ends the network: its linear layer, batch normalisation, or that without learnt scale and shift.
    """
    layers: list[nn.Module] = []
    *hidden, (last_in, last_out) = pairwise(widths)
    for num_in, num_out in hidden:
        layers.append(nn.Linear(num_in, num_out, bias=not norm))
        layers += [nn.BatchNorm1d(num_out)] if norm else []
        layers.append(nn.ReLU())
    layers.append(nn.Linear(last_in, last_out, bias=last == "linear"))
    if last != "linear":
        layers.append(nn.BatchNorm1d(last_out, affine=last == "norm"))
    return nn.Sequential(*layers)


def dense_mlp(channels: Sequence[int], *, norm: bool = True) -> nn.Sequential:
    """Return the same for feature maps (B, C, h, w): convolutions of one pixel with ReLU between them."""
    layers: list[nn.Module] = []
    *hidden, (last_in, last_out) = pairwise(channels)
    for num_in, num_out in hidden:
        layers.append(nn.Conv2d(num_in, num_out, 1, bias=not norm))
        layers += [nn.BatchNorm2d(num_out)] if norm else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(last_in, last_out, 1))


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """Return float32 vectors scaled to length 1."""
    return F.normalize(x.float(), dim=dim)


def build_prototypes(num_prototypes: int, num_features: int) -> nn.Linear:
    """Return a bias-free linear layer whose rows are prototypes of unit length."""
    layer = nn.Linear(num_features, num_prototypes, bias=False)
    normalise_prototypes(layer)
    return layer


def normalise_prototypes(layer: nn.Linear) -> None:
    """Scale the rows of a linear layer to unit length, in place."""
    with torch.no_grad():
        layer.weight.copy_(F.normalize(layer.weight, dim=1))
