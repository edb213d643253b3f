from __future__ import annotations

from typing import get_args

import pytest
import torch

from raysweep.errors import StudyError
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.tasks._architectures import (
    _ANY_PYRAMID,
    _PYRAMIDS,
    Architecture,
    Design,
    _check,
    build_network,
    check_architecture,
)

ARCHITECTURES = get_args(Architecture)
ENCODERS = ("test_resnet", "test_convnext", "test_vit")
ROTARY = Backbone(encoder="vit_small_patch16_dinov3", options={"patch_size": 8, "embed_dim": 48, "num_heads": 3})
POOLED = Backbone(encoder="eva02_tiny_patch14_224")


def design(name: str, num_channels: int = 3) -> Design:
    return Design(name, num_channels, (16, 16, 8, 8, 8), 32)


def fits(name: str, encoder: str) -> bool:
    return (name == "dpt") == (encoder == "test_vit")


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_holds_every_weight_of_the_encoder_or_is_refused(name, encoder):
    backbone = Backbone(encoder=encoder)
    if not fits(name, encoder):
        with pytest.raises(StudyError, match=rf"architecture '{name}' cannot be built on encoder '{encoder}'"):
            _check(design(name), backbone, 64)
        return
    check_architecture(design(name), backbone, 64)
    ours = build_encoder(backbone)
    with torch.no_grad():
        for value in ours.model.state_dict().values():
            value.copy_(torch.rand_like(value.float()).to(value.dtype) if value.is_floating_point() else value + 7)
    network = build_network(design(name), ours)
    expected = {key.removeprefix("model."): value for key, value in ours.model.state_dict().items()}
    inside = network.get_submodule("encoder.model").state_dict()
    assert len(inside) == len(expected)
    for key, value in inside.items():
        assert torch.equal(value, expected[key]), key
    assert network.eval()(torch.zeros(1, 1, 64, 96)).shape == (1, 3, 64, 96)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "dpt"])
def test_the_encoder_inside_sees_what_the_pretrained_one_sees(name):
    ours = build_encoder(Backbone(encoder="test_resnet")).eval()
    network = build_network(design(name), ours).eval()
    slices = torch.randn(2, 1, 64, 64)
    found = network.get_submodule("encoder")(slices)
    expected = ours.feature_maps(slices)
    if name == "deeplabv3plus":  # it dilates the last level instead of halving it
        found, expected = found[:-1], expected[:-1]
    for one, other in zip(found[-len(expected) :], expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("backbone", "pixels"),
    [(Backbone(encoder="test_vit"), 64), (ROTARY, 64), (POOLED, 56)],
    ids=["absolute", "rotary", "pooled"],
)
def test_the_transformer_inside_sees_what_the_pretrained_one_sees(backbone, pixels):
    ours = build_encoder(backbone).eval()
    network = build_network(design("dpt"), ours).eval()
    slices = torch.randn(2, 1, pixels, pixels)
    (maps, _), vit = network.get_submodule("encoder")(slices), ours.vit
    normed = vit.norm(maps[-1].flatten(2).transpose(1, 2)).transpose(1, 2).reshape(maps[-1].shape)
    torch.testing.assert_close(normed, ours.feature_maps(slices)[-1])


@pytest.mark.heavy
def test_families_that_are_not_asked_do_fit():
    """One small member each of the families that ``check_architecture`` passes without importing torch."""
    members = (
        "resnet18", "resnext50_32x4d", "wide_resnet50_2", "seresnet18", "convnext_atto", "densenet121",
        "efficientnet_b0", "mobilenetv3_small_050", "regnetx_002", "vgg11", "swin_tiny_patch4_window7_224",
        "test_resnet", "test_convnext", "test_efficientnet",
    )  # fmt: skip
    assert {next(f for f in _PYRAMIDS if member.startswith(f)) for member in members} == set(_PYRAMIDS)
    for member in members:
        for name in _ANY_PYRAMID:
            _check(design(name), Backbone(encoder=member), 64)


def test_a_refusal_names_what_can_be_built():
    with pytest.raises(StudyError, match=r"; dpt can$"):
        check_architecture(design("fpn"), Backbone(encoder="test_vit"), 64)
    with pytest.raises(StudyError, match=r"height=64.*divisible by 14.*no architecture can"):
        check_architecture(design("dpt"), Backbone(encoder="vit_small_patch14_dinov2"), 64)


@pytest.mark.parametrize(
    "encoder",
    [
        "vit_small_patch14_dinov2",
        "vit_small_patch14_reg4_dinov2",
        "vit_small_patch8_224",
        "vit_small_patch16_dinov3",
        "eva02_tiny_patch14_224",
    ],
)
def test_transformers_of_2026_are_built_at_the_size_they_are_trained_at(encoder):
    check_architecture(design("dpt"), Backbone(encoder=encoder), 224)


@pytest.mark.parametrize(("side", "pixels"), [(14, (56, 84)), (12, (48, 72)), (8, (32, 64))])
def test_patches_of_any_side_give_masks_of_the_size_of_their_slices(side, pixels):
    """And every weight has a part in them, the encoder's last normalisation excepted, which a DPT leaves out."""
    ours = build_encoder(Backbone(encoder="test_vit", options={"patch_size": side, "img_size": 4 * side}))
    network = build_network(design("dpt"), ours)
    masks = network(torch.randn(2, 1, *pixels))
    assert masks.shape == (2, 3, *pixels)
    masks.square().sum().backward()
    assert {name for name, p in network.named_parameters() if p.grad is None} <= {
        "encoder.model.norm.weight",
        "encoder.model.norm.bias",
    }


def test_the_width_of_a_decoder_can_be_chosen():
    encoder = build_encoder(Backbone(encoder="test_resnet"))
    for name in ("fpn", "deeplabv3plus", "upernet"):
        sizes = [
            sum(p.numel() for p in build_network(Design(name, 3, (8, 8), width), encoder).parameters())
            for width in (32, 64, None)
        ]
        assert sizes == sorted(sizes)
        assert len(set(sizes)) == 3
