"""Encoders: timm architectures with the feature maps that every method and task reads."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from raysweep.errors import StudyError, did_you_mean
from raysweep.settings import Backbone


class Encoder(nn.Module):
    """A timm feature extractor.

    The same module (``model``, a ``features_only`` timm network) is pretrained, written to snapshots and placed inside
    segmentation networks, so that its keys match strictly everywhere.

    Shapes: B batch, C channels, H height, W width, D ``num_features``.
    """

    def __init__(self, model: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.model = model
        self.backbone = backbone
        self.num_features: int = model.feature_info.channels()[-1]  # type: ignore[union-attr, operator]

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of (B, C, H, W) slices, finest first, the last as a rule (B, D, H / 32, W / 32)."""
        maps: list[Tensor] = self.model(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return the spatial mean of the last feature map, (B, D); a mean is deterministic on every device."""
        return self.feature_maps(x)[-1].mean((2, 3))


def build_encoder(backbone: Backbone) -> Encoder:
    """Build a randomly initialised encoder; torch's global generator decides the weights.

    Raises:
        StudyError: if timm has no such architecture, or it gives no feature maps.
    """
    return Encoder(build_timm_model(backbone), backbone)


def build_timm_model(backbone: Backbone) -> nn.Module:
    """Build the ``features_only`` timm network of a backbone, with NCHW feature maps.

    Raises:
        StudyError: if timm has no such architecture, it gives no feature maps, or it does not take the options.
    """
    if "." in backbone.encoder or not timm.is_model(backbone.encoder):
        hint = did_you_mean(backbone.encoder.split(".")[0], timm.list_models())
        raise StudyError(
            f"encoder {backbone.encoder!r} is not an architecture of timm {timm.__version__}.{hint} "
            "Write the architecture without a pretrained tag; weights are named by the source."
        )
    options: dict[str, Any] = dict(backbone.options)
    try:
        model: nn.Module = timm.create_model(
            backbone.encoder, features_only=True, in_chans=backbone.channels, pretrained=False, **options
        )
    except (RuntimeError, TypeError, AttributeError) as error:
        raise StudyError(
            f"encoder {backbone.encoder!r} with options {options} cannot be built as a feature extractor: {error}"
        ) from error
    if getattr(model, "output_fmt", None) not in (None, "NCHW") and str(model.output_fmt) != "Format.NCHW":
        raise StudyError(f"encoder {backbone.encoder!r} gives {model.output_fmt} feature maps; only NCHW is supported")
    return model


def is_convolutional(encoder: Encoder) -> bool:
    """Whether the encoder takes any input size: it has no position embedding tied to one."""
    return not any("pos_embed" in name for name, _ in encoder.named_parameters())
