"""The layers of an encoder from its input on, as timm groups them for layer-wise learning rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from raysweep.lazy import torch

if TYPE_CHECKING:
    from torch import nn

    from raysweep.settings import Backbone

Grain = Literal["stage", "block"]


def layers_of(encoder: nn.Module, backbone: Backbone, grain: Grain) -> list[list[nn.Parameter]]:
    """Return the parameters of an encoder in groups, the stem first.

    Args:
        encoder: the encoder, at whichever depth of wrapping.
        backbone: what it was built from.
        grain: one group for each residual or transformer block, or for each stage where timm knows stages.

    Source: timm's ``group_matcher`` of each architecture.
    """
    layer_of = _layers_by_name(backbone, grain)
    last = max(layer_of.values(), default=0)
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        plain = name.replace(".parametrizations.weight.original", ".weight")
        groups.setdefault(layer_of.get(_flat(plain), last), []).append(parameter)
    return [groups[layer] for layer in sorted(groups)]


def _layers_by_name(backbone: Backbone, grain: Grain) -> dict[str, int]:
    """Return the layer of every parameter of the whole model, by name as feature extractors may spell it."""
    import timm
    from timm.models import group_parameters

    with torch.device("meta"):
        model = timm.create_model(backbone.encoder, num_classes=0, in_chans=backbone.channels, **backbone.options)
    grouped = group_parameters(model, model.group_matcher(coarse=grain == "stage"))
    return {_flat(name): layer for layer, names in grouped.items() for name in names}


def _flat(name: str) -> str:
    """Return a name without the wrappers around an encoder: they all are called ``model`` or ``encoder``."""
    parts = name.split(".")
    while parts and parts[0] in ("model", "encoder"):
        parts = parts[1:]
    return "_".join(parts)
