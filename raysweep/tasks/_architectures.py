"""Segmentation networks of segmentation-models-pytorch, by name, with the pretrained encoder inside.

The library's own weights are never asked for. A network's ``encoder.model`` is timm's feature extractor, the same
module that raysweep pretrains, so every key it has must be there: nothing is matched by similarity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from raysweep.errors import StudyError
from raysweep.lazy import nn, torch
from raysweep.settings import TRANSFORMER, Backbone

if TYPE_CHECKING:
    from raysweep.sources.encoder import Encoder

Architecture = Literal["unet", "unetplusplus", "fpn", "deeplabv3plus", "upernet", "dpt"]

_ANY_PYRAMID = ("unet", "unetplusplus", "fpn", "upernet")
_PYRAMIDS = (
    "resnet", "resnext", "wide_resnet", "seresnet", "convnext", "densenet", "efficientnet", "mobilenet", "regnet",
    "vgg", "swin", "test_resnet", "test_convnext", "test_efficientnet",
)  # fmt: skip
"""Families whose feature maps halve in size from one to the next: U-Net, U-Net++, FPN and UPerNet take them all."""


@dataclass(frozen=True)
class Design:
    """What a network is built from, beside the encoder."""

    architecture: Architecture
    num_channels: int
    """Channels of the output."""
    decoder_channels: tuple[int, ...]
    """Of U-Net and U-Net++, coarsest first."""
    features: int | None
    """Width of other decoders; None for the library's."""

    def options(self) -> dict[str, Any]:
        """Return the library's options for the decoder."""
        if self.architecture in ("unet", "unetplusplus"):
            return {"encoder_depth": len(self.decoder_channels), "decoder_channels": self.decoder_channels}
        return {} if self.features is None else dict(_WIDTHS[self.architecture](self.features))


_WIDTHS: Mapping[str, Callable[[int], Mapping[str, Any]]] = {
    "fpn": lambda width: {"decoder_pyramid_channels": width, "decoder_segmentation_channels": width},
    "deeplabv3plus": lambda width: {"decoder_channels": width},
    "upernet": lambda width: {"decoder_channels": width},
    "dpt": lambda width: {
        "decoder_fusion_channels": width,
        "decoder_intermediate_channels": (width, 2 * width, 4 * width, 4 * width),
    },
}
"""Architecture -> what a decoder of some width is for the library."""


def build_network(design: Design, encoder: Encoder) -> nn.Module:
    """Build a network, and load the encoder's weights into it key by key.

    A U-Net of fewer levels drops the encoder's last ones, a DPT what lies behind its last block; every key that the
    network has must be in the encoder.

    Raises:
        StudyError: if the architecture cannot be built on the encoder.
    """
    if design.architecture == "dpt" and encoder.kind != TRANSFORMER:
        raise _refusal(design, encoder.backbone, "it takes plain transformers")
    network = _build(design, encoder.backbone)
    inner = network.get_submodule("encoder.model")
    try:
        inner.load_state_dict(_weights_for(inner, encoder), strict=True)
    except RuntimeError as error:
        raise _refusal(design, encoder.backbone, "it has other layers inside than the encoder") from error
    return network


def check_architecture(design: Design, backbone: Backbone, *sizes: int) -> None:
    """Check that an architecture can be built on a backbone; torch is imported only for families not known to fit.

    Args:
        design: what it is built from.
        backbone: the encoder.
        sizes: rows and columns of the slices that it is to take, one number each.

    Raises:
        StudyError: if it cannot, with the architectures that can.
    """
    if design.architecture in _ANY_PYRAMID and backbone.encoder.startswith(_PYRAMIDS):
        return
    try:
        _check(design, backbone, *sizes)
    except StudyError as error:
        designs = {name: Design(name, 2, (32, 16), None) for name in get_args(Architecture)}
        others = [name for name, other in designs.items() if _fits(other, backbone, *sizes)]
        can = f"{', '.join(others)} can" if others else "no architecture can"
        raise StudyError(f"{error}; {can}") from error


def _fits(design: Design, backbone: Backbone, *sizes: int) -> bool:
    try:
        _check(design, backbone, *sizes)
    except StudyError:
        return False
    return True


def _check(design: Design, backbone: Backbone, *sizes: int) -> None:
    """Build everything without memory for weights, and pass slices without values of each size through it."""
    from raysweep.sources.encoder import build_encoder

    with torch.device("meta"), torch.no_grad():
        network = build_network(design, build_encoder(backbone)).eval()
        for size in sizes:
            try:
                shape = network(torch.zeros(2, backbone.channels, size, size)).shape[2:]
            except (RuntimeError, ValueError, AssertionError) as error:
                raise _refusal(design, backbone, error) from error
            if tuple(shape) != (size, size):
                raise _refusal(design, backbone, f"{size} pixels become {shape[0]}")


def _build(design: Design, backbone: Backbone) -> nn.Module:
    import segmentation_models_pytorch as smp

    classes: dict[str, type[nn.Module]] = {
        "unet": smp.Unet,
        "unetplusplus": smp.UnetPlusPlus,
        "fpn": smp.FPN,
        "deeplabv3plus": smp.DeepLabV3Plus,
        "upernet": smp.UPerNet,
        "dpt": smp.DPT,
    }
    try:
        network = classes[design.architecture](
            f"tu-{backbone.encoder}",
            encoder_weights=None,
            in_channels=backbone.channels,
            classes=design.num_channels,
            **design.options(),
            **library_options(design, backbone),
        )
    except (ValueError, RuntimeError, TypeError, AssertionError, AttributeError) as error:
        raise _refusal(design, backbone, error) from error
    if design.architecture == "dpt":
        _take_any_patch(network)
    return network


def library_options(design: Design, backbone: Backbone) -> dict[str, Any]:
    """Return the options that the encoder inside a network is built with: its own, any input size, no classifier."""
    from raysweep.sources.encoder import timm_options

    without_head = {"num_classes": 0} if design.architecture == "dpt" else {}
    return without_head | timm_options(backbone)


def _take_any_patch(network: Any) -> None:
    """Let a DPT take patches whose side is no power of two, such as the 14 pixels of DINOv2.

    The library makes grids of a quarter to a 32nd of the input out of the patches, which those do not divide. Built as
    for the nearest power of two, grids are four times to half as fine as the patches whatever their side, and the
    output is resized to the input's size by what remains.
    """
    side = network.encoder.output_stride
    nearest = 2 ** round(math.log2(side))
    if side == nearest:
        return
    from segmentation_models_pytorch.decoders.dpt.decoder import ReassembleBlock

    blocks = network.decoder.reassemble_blocks
    for level, block in enumerate(blocks):
        ends = block.project_to_out_channel, block.project_to_feature_dim
        widths = ends[0].in_channels, ends[0].out_channels, ends[1].out_channels
        blocks[level] = ReassembleBlock(*widths, upsample_factor=nearest / 2 ** (level + 2))
    network.segmentation_head.upsampling_factor *= side / nearest
    network.initialize()


def _weights_for(inner: nn.Module, encoder: Encoder) -> dict[str, torch.Tensor]:
    """Return the encoder's weights under the names of the module inside a network; what that lacks is left out."""
    state, wanted = encoder.model.state_dict(), inner.state_dict()
    if encoder.kind == TRANSFORMER:  # the whole network inside, where ours has a feature extractor around it
        state = {key.removeprefix("model."): value for key, value in state.items()}
        # The normalisation of pooled tokens: no map is made of it.
        state |= {key: value for key, value in wanted.items() if key.startswith("fc_norm.")}
    return {key: value for key, value in state.items() if key in wanted}


def _refusal(design: Design, backbone: Backbone, reason: object) -> StudyError:
    why = str(reason) or "the library does not say why"
    return StudyError(f"architecture {design.architecture!r} cannot be built on encoder {backbone.encoder!r} ({why})")
