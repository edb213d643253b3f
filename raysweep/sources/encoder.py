"""Encoders: timm architectures with the features, feature maps and tokens that methods and tasks read."""

from __future__ import annotations

from typing import Any, get_args

import timm
import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from raysweep.errors import StudyError, did_you_mean
from raysweep.settings import CONVOLUTIONAL, HIERARCHICAL, TRANSFORMER, Backbone
from raysweep.sources._vit import PlainTransformer, Tokens, patch_size, vit_tokens

_NUM_VIT_MAPS = 3
_WHOLE = {transformer.__module__ for transformer in get_args(PlainTransformer)}
"""Modules of plain transformers, which timm would deprive of their final normalisation."""
_ANY_SIZE: dict[str, dict[str, Any]] = {
    **{module: {"dynamic_img_size": True} for module in _WHOLE},
    "timm.models.swin_transformer": {"strict_img_size": False},
    "timm.models.swin_transformer_v2": {"strict_img_size": False},
}
"""Options that make the architectures of a module take inputs of any size."""


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
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")

    @property
    def vit(self) -> PlainTransformer | None:
        """The plain vision transformer inside, or None for any other network."""
        inner = getattr(self.model, "model", None)
        return inner if isinstance(inner, PlainTransformer) else None

    @property
    def kind(self) -> str:
        """``convolutional``, ``transformer`` (plain, of patch tokens) or ``hierarchical`` (other attention)."""
        if self.vit is not None:
            return TRANSFORMER
        return HIERARCHICAL if _has_attention(self.model) else CONVOLUTIONAL

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels; only transformers have patches."""
        return patch_size(self._tokeniser())

    @property
    def channels(self) -> list[int]:
        """Channels of each feature map, finest first."""
        widths: list[int] = self.model.feature_info.channels()  # type: ignore[union-attr, operator]
        return widths

    @property
    def reduction(self) -> list[int]:
        """Input pixels per cell of each feature map, finest first."""
        strides: list[int] = self.model.feature_info.reduction()  # type: ignore[union-attr, operator]
        return strides

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """Return the NCHW feature maps of (B, C, H, W) slices, finest first; the last of most is (B, D, H/32, W/32)."""
        if self.vit is not None:
            blocks = tuple(self.model.out_indices)  # type: ignore[arg-type]
            return [self._as_map(tokens.patches, x) for tokens in vit_tokens(self.vit, x, blocks=blocks)]
        maps: list[Tensor] = self.model(x)
        return [m.permute(0, 3, 1, 2) for m in maps] if self.channels_last else maps

    def forward(self, x: Tensor) -> Tensor:
        """Return the spatial mean of the last feature map, (B, D); a mean is deterministic on every device."""
        return self.feature_maps(x)[-1].mean((2, 3))

    def tokens(
        self, x: Tensor, *, hidden: Tensor | None = None, mask_token: Tensor | None = None, kept: Tensor | None = None
    ) -> Tokens:
        """Return the last tokens of a transformer.

        Args:
            x: (B, C, H, W), H and W multiples of ``patch_px``.
            hidden: (B, N) bool, patches to replace by ``mask_token``.
            mask_token: (D,).
            kept: (B, K) int64, the only patches to encode.
        """
        return vit_tokens(self._tokeniser(), x, hidden=hidden, mask_token=mask_token, kept=kept)[0]

    def _tokeniser(self) -> PlainTransformer:
        if self.vit is None:
            raise StudyError(f"encoder {self.backbone.encoder!r} is {self.kind}: only plain transformers have tokens")
        return self.vit

    def _as_map(self, patches: Tensor, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // self.patch_px, x.shape[3] // self.patch_px
        return patches.transpose(1, 2).reshape(len(x), -1, rows, columns)


def build_encoder(backbone: Backbone) -> Encoder:
    """Build a randomly initialised encoder; torch's global generator decides the weights.

    Raises:
        StudyError: if timm has no such architecture, or it gives no feature maps.
    """
    return Encoder(build_timm_model(backbone), backbone)


def build_timm_model(backbone: Backbone) -> nn.Module:
    """Build the ``features_only`` timm network of a backbone; a plain transformer keeps its final normalisation.

    Raises:
        StudyError: if timm has no such architecture, it gives no feature maps, or it does not take the options.
    """
    if "." in backbone.encoder or not timm.is_model(backbone.encoder):
        hint = did_you_mean(backbone.encoder.split(".")[0], timm.list_models())
        raise StudyError(
            f"encoder {backbone.encoder!r} is not an architecture of timm {timm.__version__}.{hint} "
            "Write the architecture without a pretrained tag; weights are named by the source."
        )
    options = timm_options(backbone)
    try:
        whole = timm.models.model_entrypoint(backbone.encoder).__module__ in _WHOLE
        model: nn.Module = timm.create_model(
            backbone.encoder, features_only=not whole, in_chans=backbone.channels, pretrained=False, **options
        )
        if whole:
            num_maps = min(_NUM_VIT_MAPS, len(model.blocks))  # type: ignore[arg-type]
            model = FeatureGetterNet(model, out_indices=num_maps, norm=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise StudyError(
            f"encoder {backbone.encoder!r} with options {dict(backbone.options)} cannot be built as a feature "
            f"extractor: {error}"
        ) from error
    layout = str(getattr(model, "output_fmt", None) or "NCHW")
    if not layout.endswith(("NCHW", "NHWC")):
        raise StudyError(f"encoder {backbone.encoder!r} gives {layout} features; NCHW and NHWC maps are supported")
    return model


def timm_options(backbone: Backbone) -> dict[str, Any]:
    """Return the options a backbone is built with: its own, and those that make it take inputs of any size."""
    return {**_ANY_SIZE.get(timm.models.model_entrypoint(backbone.encoder).__module__, {}), **backbone.options}


def build_weightless(backbone: Backbone, image_size: int) -> Encoder:
    """Build an encoder without memory for weights, and pass slices without values through it.

    Raises:
        StudyError: if it cannot be built, or does not take slices of ``image_size`` pixels.
    """
    with torch.device("meta"), torch.no_grad():
        encoder = build_encoder(backbone).eval()
        try:
            encoder(torch.zeros(2, backbone.channels, image_size, image_size))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise StudyError(
                f"encoder {backbone.encoder!r} with options {dict(backbone.options)} does not take slices of "
                f"{image_size} x {image_size} pixels: {error}"
            ) from error
    return encoder


def is_convolutional(encoder: Encoder) -> bool:
    """Whether the encoder is a convolutional network."""
    return encoder.kind == CONVOLUTIONAL


def _has_attention(model: nn.Module) -> bool:
    """Whether a network attends between positions: linear layers below a module named attn."""
    return any(isinstance(module, nn.Linear) and "attn" in name for name, module in model.named_modules())
