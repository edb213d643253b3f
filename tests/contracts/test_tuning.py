"""What every mode of fine-tuning must do, run for each by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raysweep import registry
from raysweep.settings import Backbone, Optimisation
from raysweep.sources.encoder import build_encoder
from raysweep.stages.optimisation import build_optimiser
from raysweep.study import study_schema
from raysweep.tuning import build_tuning

MODES = registry.names("tuning")
CNN = Backbone(encoder="resnet18", channels=1)
ATTENTION = Backbone(encoder="pvt_v2_b0", channels=1)
EPOCHS = 5


def backbone_for(mode: str) -> Backbone:
    return ATTENTION if mode == "lora" else CNN


def prepared(mode: str, backbone: Backbone | None = None):
    torch.manual_seed(0)
    encoder = build_encoder(backbone or backbone_for(mode))
    network = nn.ModuleDict({"encoder": encoder.model, "head": nn.Linear(encoder.num_features, 2)})
    settings = registry.load("tuning", mode).TUNING.Settings().model_dump()
    chosen = {"kind": mode, "settings": settings} if settings else mode
    tuning = build_tuning(chosen, network, network["encoder"], encoder.backbone, EPOCHS)
    return tuning, network, encoder


def learning(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("mode", MODES)
def test_the_optimiser_knows_every_parameter_that_ever_learns_once(mode):
    tuning, network, _ = prepared(mode)
    optimiser = build_optimiser(tuning.groups(), Optimisation())
    known = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert len(known) == len(set(known))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    ever = set()
    for epoch in range(1, EPOCHS + 1):
        tuning.begin_epoch(epoch)
        ever |= learning(network)
    assert ever
    assert {names[key] for key in known} == ever


@pytest.mark.parametrize("mode", MODES)
def test_what_learns_is_a_function_of_the_epoch_alone(mode):
    first, second = prepared(mode), prepared(mode)
    for epoch in range(1, EPOCHS + 1):
        first[0].begin_epoch(epoch)
    second[0].begin_epoch(EPOCHS)
    assert learning(first[1]) == learning(second[1])
    assert [m.training for m in first[1].modules()] == [m.training for m in second[1].modules()]


@pytest.mark.parametrize("mode", MODES)
def test_a_step_changes_what_learns_and_nothing_else(mode):
    tuning, network, _ = prepared(mode)
    optimiser = build_optimiser(tuning.groups(), Optimisation(optimiser="sgd", lr=0.1))
    tuning.begin_epoch(1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    features = network["encoder"](torch.rand(3, 1, 64, 64))[-1].mean((2, 3))
    network["head"](features).square().sum().backward()
    optimiser.step()
    moves = learning(network)
    changed = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert changed <= moves
    assert any(name.startswith("head") for name in changed)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and not module.training:
            assert torch.equal(module.running_mean, before[f"{name}.running_mean"])


@pytest.mark.parametrize("mode", MODES)
def test_a_merged_network_has_plain_keys_and_the_same_features(mode):
    tuning, network, encoder = prepared(mode)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn_like(parameter)
    network.eval()
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = network["encoder"](slices)[-1]
        tuning.merge()
        torch.testing.assert_close(network["encoder"](slices)[-1], expected)
    plain = build_encoder(encoder.backbone).model.state_dict()
    assert network["encoder"].state_dict().keys() == plain.keys()


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_documented_and_in_the_schema_of_study_files(mode):
    assert registry.describe("tuning")[mode]
    kinds = study_schema()["properties"]["tunings"]["additionalProperties"]["anyOf"]
    (schema,) = [kind for kind in kinds if kind["properties"]["kind"] == {"const": mode}]
    assert all("description" in value for key, value in schema["properties"].items() if key != "kind")
