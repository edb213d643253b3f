"""Every published layout loads completely, to the bit, and nothing that differs passes for it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from raysweep.errors import WeightsError
from raysweep.settings import Backbone
from raysweep.sources.fit import load_weights
from raysweep.sources.formats import read_tensors
from raysweep.sources.layouts import as_pytorch
from tests.unit.sources import published
from tests.unit.sources.published import RESNET, assert_loaded, fresh, resnet_state

LAYOUTS: dict[str, tuple[Callable[[published.State], Any], str]] = {
    "torchvision": (lambda state: state, ""),
    "moco": (published.moco, "state_dict.module.encoder_q."),
    "pycontrast": (published.pycontrast, "model.module.encoder."),
    "swav": (published.swav, "module."),
    "chexpert": (lambda state: {"state_dict": published.prefixed(state, "module.")}, "state_dict.module."),
    "lightning": (published.lightning, "state_dict.momentum_backbone."),
    "byol-target": (published.byol_target, "target_backbone.module."),
    "dino": (lambda s: {"teacher": published.prefixed(s, "module.backbone.")}, "teacher.module.backbone."),
    "simsiam": (lambda s: {"state_dict": published.prefixed(s, "module.encoder.")}, "state_dict.module.encoder."),
    "children": (published.sequential, "backbone."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_torch_checkpoints_of_every_layout_load_completely(tmp_path, layout):
    build, prefix = LAYOUTS[layout]
    state, encoder = resnet_state(), fresh()
    torch.save(build(state), tmp_path / "w.pth.tar")
    report = load_weights(encoder, read_tensors(tmp_path / "w.pth.tar"), name=layout)
    assert_loaded(RESNET, encoder, state)
    assert report.is_complete
    assert report.prefix == prefix
    assert report.matched == 53 * 6


def test_haiku_arrays_of_byol_load_the_online_encoder(tmp_path):
    state, other, encoder = resnet_state(), resnet_state(2), fresh()
    (tmp_path / "byol.pkl").write_bytes(published.byol_pickle(state, other))
    tensors = read_tensors(tmp_path / "byol.pkl")
    report = load_weights(encoder, tensors, name="byol", prefix="experiment_state.online")
    assert_loaded(RESNET, encoder, state)
    assert report.matched == 53 * 5
    load_weights(encoder, tensors, name="byol", prefix="experiment_state.target")
    assert_loaded(RESNET, encoder, other)


def test_haiku_arrays_without_a_training_state_load_too(tmp_path):
    state, encoder = resnet_state(), fresh()
    parameters, statistics = published.haiku_arrays(state)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"online_params": parameters, "online_state": statistics}))
    load_weights(encoder, read_tensors(tmp_path / "w.pkl"), name="w")
    assert_loaded(RESNET, encoder, state)


def test_tensorflow_variables_of_simclr_load_in_the_order_of_its_code(tmp_path):
    state, encoder = resnet_state(), fresh()
    index = published.write_tensorflow(tmp_path / "model.ckpt-225206", published.simclr_variables(state))
    report = load_weights(encoder, read_tensors(index), name="simclr")
    assert_loaded(RESNET, encoder, state)
    assert report.matched == 53 * 5


def test_tensorflow_networks_that_timm_does_not_have_are_named(tmp_path):
    variables = published.simclr_variables(resnet_state())
    variables["base_model/conv2d_53/kernel"] = np.zeros((1, 1, 2, 2), np.float32)
    with pytest.raises(WeightsError, match=r"54 convolutions.*selective-kernel"):
        as_pytorch({key: torch.from_numpy(value) for key, value in variables.items()})


def test_a_full_size_resnet50_of_tensorflow_becomes_one_channel_features(tmp_path):
    state = resnet_state(width=False)
    variables = published.simclr_variables(state)
    encoder = fresh(Backbone(encoder="resnet50", channels=1))
    tensors = {key: torch.from_numpy(value) for key, value in variables.items()}
    report = load_weights(encoder, tensors, name="simclr")
    assert report.channels == "3 -> 1: summed"
    assert report.adapted == ("conv1.weight",)
    reference = timm.create_model("resnet50", num_classes=0)
    reference.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = reference.eval().forward_features(slices.expand(-1, 3, -1, -1))
        torch.testing.assert_close(encoder.eval().feature_maps(slices)[-1], expected, rtol=1e-3, atol=1e-3)


def test_transformers_naming_of_dinov2_joins_query_key_and_value():
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=28, depth=2)
    theirs = {}
    for key, value in model.state_dict().items():
        name = key.replace("patch_embed.proj.", "embeddings.patch_embeddings.projection.")
        name = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings"}.get(name, name)
        name = name.replace("blocks.", "encoder.layer.").replace(".attn.proj.", ".attention.output.dense.")
        name = name.replace(".ls1.gamma", ".layer_scale1.lambda1").replace(".ls2.gamma", ".layer_scale2.lambda1")
        name = name.replace("norm.", "layernorm.") if name.startswith("norm.") else name
        if ".attn.qkv." in name:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                theirs[name.replace(".attn.qkv.", f".attention.attention.{part}.")] = piece
        else:
            theirs[name] = value
    theirs["embeddings.mask_token"] = torch.zeros(1, 384)
    converted = as_pytorch(theirs)
    converted.pop("mask_token")
    assert converted.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(converted[key], value, rtol=0, atol=0)


SMALL_V3 = {"depth": 2, "embed_dim": 48, "num_heads": 3}


def dinov3(name: str, biased: bool):
    """A DINOv3 of timm with random weights, and its state with the names of the original code."""
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=0, **SMALL_V3).eval()
    original = {"mask_token": torch.zeros(1, 48), "rope_embed.periods": torch.ones(4)}
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    renamed = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma", "reg_token": "storage_tokens"}
    renamed |= {"fc1_g": "w1", "fc1_x": "w2", "mlp.fc2": "mlp.w3"} if "plus" in name else {}
    for key, value in model.state_dict().items():
        for ours, theirs in renamed.items():
            key = key.replace(ours, theirs)
        original[key] = value
    for block in range(2):
        of_queries, of_values = (original.pop(f"blocks.{block}.attn.{part}_bias", torch.zeros(48)) for part in "qv")
        if biased:
            assert of_queries.any()
        original[f"blocks.{block}.attn.qkv.bias"] = torch.cat([of_queries, torch.zeros(48), of_values])
    return model, original


def as_transformers(original: published.State, layers: str) -> published.State:
    """Rename a DINOv3 as the transformers library holds it: queries, keys and values apart, keys without a bias."""
    renamed = {
        "storage_tokens": "embeddings.register_tokens", "patch_embed.proj": "embeddings.patch_embeddings",
        "blocks.": layers, "attn.proj": "attention.o_proj", "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1", "mlp.fc1": "mlp.up_proj", "mlp.fc2": "mlp.down_proj",
        "mlp.w1": "mlp.gate_proj", "mlp.w2": "mlp.up_proj", "mlp.w3": "mlp.down_proj",
        "cls_token": "embeddings.cls_token", "mask_token": "embeddings.mask_token",
    }  # fmt: skip
    theirs = {}
    for key, value in original.items():
        for name, other in renamed.items():
            key = key.replace(name, other)
        if ".attn.qkv." in key:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                if (part, key.rpartition(".")[2]) != ("k", "bias"):
                    theirs[key.replace(".attn.qkv.", f".attention.{part}_proj.")] = piece
        elif not key.startswith("rope"):
            theirs[key] = value
    return theirs


@pytest.mark.parametrize("wrapped", ["", "backbone."])
@pytest.mark.parametrize("layers", [None, "layer.", "model.layer."])
@pytest.mark.parametrize(
    ("name", "biased"),
    [
        ("vit_small_patch16_dinov3", False),
        ("vit_small_patch16_dinov3_qkvb", True),
        ("vit_small_plus_patch16_dinov3", False),
        ("vit_small_plus_patch16_dinov3_qkvb", True),
    ],
)
def test_dinov3_loads_as_its_authors_and_as_the_transformers_library_name_it(name, biased, layers, wrapped, capsys):
    model, original = dinov3(name, biased)
    state = original if layers is None else as_transformers(original, layers)
    encoder = fresh(Backbone(encoder=name, channels=3, options=SMALL_V3)).eval()
    report = load_weights(encoder, published.prefixed(state, wrapped), name="w")
    assert (report.missing, report.misfits) == ((), ())
    slices = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        tokens = encoder.tokens(slices)
        expected = model.set_input_size((64, 96)) or model.forward_features(slices)
    torch.testing.assert_close(torch.cat((tokens.prefix, tokens.patches), 1), expected, atol=1e-5, rtol=1e-4)
    assert capsys.readouterr().out == ""


def test_biases_that_an_architecture_has_no_place_for_are_not_lost_in_silence():
    _, original = dinov3("vit_small_patch16_dinov3_qkvb", biased=True)
    plain = fresh(Backbone(encoder="vit_small_patch16_dinov3", channels=3, options=SMALL_V3))
    with pytest.raises(WeightsError, match=r"qkv\.bias is not zero.* has no biases there: use .*_dinov3_qkvb'$"):
        load_weights(plain, original, name="w")


def test_position_embeddings_are_brought_to_the_input_size_and_the_report_says_so():
    state = timm.create_model("vit_tiny_patch16_224", depth=3, num_classes=0).state_dict()
    encoder = fresh(Backbone(encoder="vit_tiny_patch16_224", channels=3, options={"depth": 3, "img_size": 64}))
    report = load_weights(encoder, state, name="w")
    assert report.reshaped == ("pos_embed",)


def test_two_equal_encoders_are_not_guessed_between():
    state = resnet_state()
    both = {**published.prefixed(state, "left."), **published.prefixed(state, "right.")}
    with pytest.raises(WeightsError, match=r"2 encoders in the file fit equally: left\., right\."):
        load_weights(fresh(), both, name="w")
    assert load_weights(fresh(), both, name="w", prefix="right").prefix == "right."


def test_a_prefix_that_is_not_there_is_refused_with_the_nearest():
    state = published.prefixed(resnet_state(), "module.encoder_q.")
    with pytest.raises(WeightsError, match=r"Did you mean 'module\.encoder_q'"):
        load_weights(fresh(), state, name="w", prefix="module.encoder")


@pytest.mark.parametrize(
    ("theirs", "asked", "said"),
    [
        (
            "resnet18",
            "resnet50",
            "look like ResNet-18 (100% of keys and shapes); the study asks for ResNet-50",
        ),
        ("resnet34", "resnet18", "These keys look like ResNet-34"),
        ("densenet121", "resnet18", "These keys look like densenet121"),
        ("vit_tiny_patch16_224", "resnet18", "These keys look like vit_tiny_patch16_224"),
    ],
)
def test_weights_of_another_architecture_are_named(theirs, asked, said):
    state = published.prefixed(timm.create_model(theirs).state_dict(), "module.")
    with pytest.raises(WeightsError) as caught:
        load_weights(fresh(Backbone(encoder=asked, channels=1)), state, name="w")
    assert said in str(caught.value)


def test_weights_of_another_width_are_told_from_those_of_another_architecture():
    with pytest.raises(WeightsError, match="The names are those of ResNet-50, but the layers are wider or narrower"):
        load_weights(fresh(Backbone(encoder="resnet50", channels=3)), resnet_state(), name="w")


def test_the_silent_random_start_of_the_cardiac_study_is_an_error():
    """Its code loads with strict=False after filtering by prefix: a wrong prefix left random weights in place."""
    state = published.lightning(resnet_state())["state_dict"]
    wrong = {key.replace("backbone.", "encoder_weights/"): value for key, value in state.items()}
    encoder = fresh()
    before = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    with pytest.raises(WeightsError, match="0 of its 265 keys matched"):
        load_weights(encoder, wrong, name="byol-acdc.ckpt")
    assert all(torch.equal(value, before[key]) for key, value in encoder.model.state_dict().items())
    load_weights(encoder, state, name="byol-acdc.ckpt")
    convolutions = [key for key, value in before.items() if value.ndim == 4]
    assert not any(torch.equal(encoder.model.state_dict()[key], before[key]) for key in convolutions)


SHARED = Path(__file__).parents[4] / "shared" / "weights"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared beside this checkout: real weights are no part of it")
def test_real_weights_load_and_a_foreign_checkpoint_is_explained():
    backbone = Backbone(encoder="mobilenetv2_035", channels=1)
    report = load_weights(fresh(backbone), read_tensors(SHARED / "mobilenetv2_035_imagenet.pt"), name="w")
    assert report.matched == 255
    assert report.channels == "3 -> 1: summed"
    foreign = read_tensors(SHARED / "resnet20_cifar10_module_prefix.th")
    with pytest.raises(WeightsError, match=r"ResNet for 32-pixel images \(three stages of 3 \+ 3 \+ 3 blocks"):
        load_weights(fresh(Backbone(encoder="resnet18", channels=1)), foreign, name="w")
