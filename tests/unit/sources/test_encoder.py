"""Encoders: feature maps in one layout, transformers at any size, tokens, and types told apart."""

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from raysweep.errors import StudyError
from raysweep.settings import CONVOLUTIONAL, HIERARCHICAL, TRANSFORMER, Backbone
from raysweep.sources._vit import resize_positions
from raysweep.sources.encoder import build_encoder, build_weightless

VIT = Backbone(encoder="test_vit")
SWIN = Backbone(
    encoder="swin_tiny_patch4_window7_224",
    options={"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
)


ROTARY = [
    Backbone(encoder="vit_small_patch16_dinov3", options={"depth": 3, "embed_dim": 48, "num_heads": 3}),
    Backbone(encoder="eva02_tiny_patch14_224", options={"depth": 3}),
    Backbone(encoder="vit_small_patch16_rope_mixed_224", options={"depth": 3, "embed_dim": 48, "num_heads": 3}),
]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet50", CONVOLUTIONAL),
        ("convnext_tiny", CONVOLUTIONAL),
        ("seresnet50", CONVOLUTIONAL),
        ("efficientnet_b0", CONVOLUTIONAL),
        ("vit_small_patch16_224", TRANSFORMER),
        ("vit_small_patch14_reg4_dinov2", TRANSFORMER),
        ("deit3_small_patch16_224", TRANSFORMER),
        ("swin_tiny_patch4_window7_224", HIERARCHICAL),
        ("swinv2_tiny_window8_256", HIERARCHICAL),
        ("pvt_v2_b0", HIERARCHICAL),
        ("maxvit_tiny_tf_224", HIERARCHICAL),
        ("eva02_tiny_patch14_224", TRANSFORMER),
        ("vit_small_patch16_dinov3", TRANSFORMER),
        ("vit_small_patch16_rope_mixed_224", TRANSFORMER),
        ("beit_base_patch16_224", HIERARCHICAL),
    ],
)
def test_types_are_told_apart_without_memory_for_weights(name, kind):
    encoder = build_weightless(Backbone(encoder=name), 224)
    assert encoder.kind == kind
    assert {p.device.type for p in encoder.parameters()} == {"meta"}


@pytest.mark.parametrize("backbone", [Backbone(encoder="test_resnet"), VIT, SWIN], ids=lambda b: b.encoder)
@pytest.mark.parametrize("shape", [(64, 64), (96, 64)])
def test_feature_maps_are_nchw_at_every_size_and_their_mean_is_the_feature(backbone, shape):
    torch.manual_seed(0)
    encoder = build_encoder(backbone).eval()
    x = torch.rand(2, 1, *shape)
    maps = encoder.feature_maps(x)
    for m, channels, stride in zip(maps, encoder.channels, encoder.reduction, strict=True):
        assert m.shape == (2, channels, shape[0] // stride, shape[1] // stride)
    torch.testing.assert_close(encoder(x), maps[-1].mean((2, 3)))
    assert encoder(x).shape == (2, encoder.num_features)


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_tokens_of_a_transformer_are_those_of_timm(name):
    torch.manual_seed(0)
    reference = timm.create_model(name, in_chans=1, num_classes=0).eval()
    size = reference.patch_embed.img_size[0]
    encoder = build_encoder(Backbone(encoder=name)).eval()
    state = {f"model.{key}": value for key, value in reference.state_dict().items() if "fc_norm" not in key}
    encoder.model.load_state_dict(state)
    x = torch.rand(2, 1, size, size)
    with torch.no_grad():
        expected = reference.forward_features(x)
        tokens = encoder.tokens(x)
    torch.testing.assert_close(torch.cat((tokens.prefix, tokens.patches), 1), expected, atol=1e-5, rtol=1e-4)


def test_feature_maps_of_a_transformer_are_timms_at_another_size():
    torch.manual_seed(0)
    encoder = build_encoder(Backbone(encoder="vit_tiny_patch16_224")).eval()
    x = torch.rand(1, 1, 96, 160)
    with torch.no_grad():
        for ours, theirs in zip(encoder.feature_maps(x), encoder.model(x), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("new", [(14, 14), (4, 4), (9, 20), (24, 24)])
def test_positions_are_resampled_as_in_timm(new):
    positions = torch.randn(1, 14 * 14, 12, generator=torch.Generator().manual_seed(0))
    expected = resample_abs_pos_embed(positions, list(new), [14, 14], num_prefix_tokens=0)
    torch.testing.assert_close(resize_positions(positions, (14, 14), new), expected, atol=1e-5, rtol=1e-5)


def test_kept_patches_are_encoded_alone():
    """Tokens of kept patches equal those of a network that is given only their embeddings."""
    torch.manual_seed(0)
    encoder = build_encoder(VIT).eval()
    x = torch.rand(2, 1, 64, 64)
    kept = torch.tensor([[3, 1, 9], [0, 15, 7]])
    vit = encoder.vit
    embedded = vit.patch_embed.proj(x).flatten(2).transpose(1, 2)
    old = vit.patch_embed.grid_size
    placed = embedded + resample_abs_pos_embed(vit.pos_embed[:, 1:], [4, 4], list(old), num_prefix_tokens=0)
    first = (vit.cls_token + vit.pos_embed[:, :1]).expand(2, -1, -1)
    rows = torch.stack([placed[b, kept[b]] for b in range(2)])
    expected = vit.norm(vit.blocks(torch.cat((first, rows), 1)))
    tokens = encoder.tokens(x, kept=kept)
    torch.testing.assert_close(tokens.patches, expected[:, 1:], atol=1e-5, rtol=1e-4)
    assert tokens.patches.shape == (2, 3, 64)


def rotary(backbone):
    """A network of rotary positions whose blocks do more than pass their input on."""
    torch.manual_seed(0)
    encoder = build_encoder(backbone).eval()
    for parameter in encoder.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.rand_like(parameter)
    return encoder, torch.rand(2, 1, 4 * encoder.patch_px, 6 * encoder.patch_px)


@pytest.mark.parametrize("backbone", ROTARY, ids=lambda b: b.encoder)
def test_rotary_transformers_have_the_tokens_and_maps_of_timm_at_any_size(backbone):
    encoder, x = rotary(backbone)
    with torch.no_grad():
        tokens = encoder.tokens(x)
        joined = torch.cat((tokens.prefix, tokens.patches), 1)
        torch.testing.assert_close(joined, encoder.vit.forward_features(x), atol=1e-5, rtol=1e-4)
        for ours, theirs in zip(encoder.feature_maps(x), encoder.model(x), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backbone", ROTARY, ids=lambda b: b.encoder)
def test_kept_patches_of_rotary_transformers_keep_their_places(backbone):
    """They are what a network makes of all patches whose attention the others are masked from."""
    encoder, x = rotary(backbone)
    kept = torch.stack([torch.randperm(24)[:9] for _ in range(2)])
    num_prefix = encoder.vit.num_prefix_tokens
    seen = torch.zeros(2, num_prefix + 24, dtype=torch.bool)
    seen[:, :num_prefix] = True
    seen.scatter_(1, kept + num_prefix, True)
    with torch.no_grad():
        expected = encoder.vit.forward_features(x, attn_mask=seen[:, None, None])
        tokens = encoder.tokens(x, kept=kept)
    torch.testing.assert_close(tokens.prefix, expected[:, :num_prefix], atol=1e-5, rtol=1e-4)
    index = (kept + num_prefix)[..., None].expand(-1, -1, expected.shape[2])
    torch.testing.assert_close(tokens.patches, expected.gather(1, index), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backbone", [VIT, ROTARY[0]], ids=lambda b: b.encoder)
def test_a_transformer_keeps_its_final_normalisation(backbone):
    encoder = build_encoder(backbone)
    assert "model.norm.weight" in encoder.model.state_dict()


def test_only_transformers_have_tokens():
    with pytest.raises(StudyError, match="'test_resnet' is convolutional: only plain transformers have tokens"):
        build_encoder(Backbone(encoder="test_resnet")).tokens(torch.rand(1, 1, 32, 32))


def test_hidden_patches_need_a_mask_token():
    with pytest.raises(ValueError, match="need a mask_token"):
        build_encoder(VIT).tokens(torch.rand(1, 1, 64, 64), hidden=torch.ones(1, 16, dtype=torch.bool))


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        (Backbone(encoder="vit_small_patch14_dinov2"), 64, "64 x 64 pixels: .* do not divide into patches of 14"),
        (Backbone(encoder="maxvit_tiny_tf_224"), 64, "does not take slices of 64 x 64 pixels"),
    ],
)
def test_a_size_that_an_encoder_does_not_take_is_told(backbone, size, message):
    with pytest.raises(StudyError, match=message):
        build_weightless(backbone, size)
