"""What each mode of fine-tuning trains, and how fast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raysweep.errors import StudyError
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.tuning import build_tuning
from raysweep.tuning._layers import layers_of
from raysweep.tuning.lora import attention_layers

RESNET = Backbone(encoder="resnet18", channels=1)


def tuned(kind: str, backbone: Backbone = RESNET, epochs: int = 10, **settings):
    torch.manual_seed(0)
    encoder = build_encoder(backbone)
    network = nn.ModuleDict({"encoder": encoder.model, "head": nn.Linear(encoder.num_features, 2)})
    return build_tuning({"kind": kind, "settings": settings}, network, network["encoder"], backbone, epochs), network


def learning(network) -> set[str]:
    return {name.removeprefix("encoder.") for name, p in network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "stages", "blocks"),
    [("resnet18", 5, 9), ("convnext_atto", 5, 13), ("pvt_v2_b0", 5, 5), ("vit_tiny_patch16_224", 13, 13)],
)
def test_every_parameter_belongs_to_one_layer_from_the_stem_on(name, stages, blocks):
    backbone = Backbone(encoder=name, channels=1)
    with torch.device("meta"):
        encoder = build_encoder(backbone)
    for grain, count in (("stage", stages), ("block", blocks)):
        layers = layers_of(encoder, backbone, grain)
        assert len(layers) == count
        order = [id(p) for layer in layers for p in layer]
        assert sorted(order) == sorted(id(p) for p in encoder.parameters())
        assert id(next(encoder.parameters())) in [id(p) for p in layers[0]]


def test_probe_then_full_releases_the_encoder_after_its_share_of_the_epochs():
    tuning, network = tuned("probe-then-full", probe_share=0.25)
    free = []
    for epoch in range(1, 11):
        tuning.begin_epoch(epoch)
        free.append("conv1.weight" in learning(network))
        assert network["encoder"].bn1.training == free[-1]
        assert "head.weight" in learning(network)
    assert free == [False] * 3 + [True] * 7


def test_last_stages_train_those_and_keep_the_statistics_of_the_others():
    tuning, network = tuned("last-stages", stages=2)
    tuning.begin_epoch(1)
    assert {name.split(".")[0] for name in learning(network)} == {"layer3", "layer4", "head"}
    encoder = network["encoder"]
    assert not encoder.bn1.training
    assert not encoder.layer2[0].bn1.training
    assert encoder.layer3[0].bn1.training


@pytest.mark.parametrize("stages", [5, 9])
def test_more_last_stages_than_there_are_is_refused(stages):
    with pytest.raises(StudyError, match="has 4 besides its stem; allowed: 1 to 4"):
        tuned("last-stages", stages=stages)


def test_learning_rates_fall_by_the_decay_from_layer_to_layer():
    tuning, network = tuned("layer-decay", decay=0.5, grain="stage")
    groups = tuning.groups()
    assert [group.lr_scale for group in groups] == [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5, 1.0]
    assert any(p is network["encoder"].conv1.weight for p in groups[0].parameters)
    assert any(p is network["encoder"].layer4[0].conv1.weight for p in groups[4].parameters)
    assert any(p is network["head"].weight for p in groups[5].parameters)
    assert len(tuned("layer-decay")[0].groups()) == 10


def test_low_rank_updates_follow_equation_3_of_the_paper():
    _, network = tuned("lora", Backbone(encoder="pvt_v2_b0", channels=1), rank=2, alpha=6.0)
    layers = attention_layers(network["encoder"])
    layer = layers[0]
    update = layer.parametrizations.weight[0]
    frozen = layer.parametrizations.weight.original.clone()
    assert torch.equal(layer.weight, frozen)
    with torch.no_grad():
        update.b.normal_()
        torch.testing.assert_close(layer.weight, frozen + 3.0 * update.b @ update.a)
    assert update.a.shape == (2, layer.in_features)
    names = learning(network)
    assert {name.rsplit(".", 1)[-1] for name in names if not name.startswith("head")} == {"a", "b"}
    inside = sum(p.numel() for n, p in network.named_parameters() if p.requires_grad and not n.startswith("head"))
    assert inside == sum(2 * (layer.in_features + layer.out_features) for layer in layers)


def test_low_rank_updates_reach_query_key_value_and_projection_of_a_vision_transformer():
    with torch.device("meta"):
        encoder = build_encoder(Backbone(encoder="vit_tiny_patch16_224", channels=1))
    assert len(attention_layers(encoder)) == 12 * 2


def test_low_rank_updates_of_a_convolutional_encoder_are_refused():
    with pytest.raises(StudyError, match="'resnet18' has no attention"):
        tuned("lora")
