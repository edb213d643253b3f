import copy

import pytest
import torch
from lightly.utils import lars as lightly_lars
from torch import nn

from raysweep.settings import Optimisation
from raysweep.stages.optimisation import LARS, build_optimiser, clip
from raysweep.stages.schedules import set_learning_rate
from raysweep.tuning import ParameterGroup


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("lars", LARS),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_weight_decay_reaches_weights_but_neither_biases_nor_normalisation(name, cls):
    optimiser = build_optimiser(layers(), Optimisation(optimiser=name, lr=0.2, weight_decay=0.1, momentum=0.8))
    assert type(optimiser) is cls
    decayed, exempt = optimiser.param_groups
    assert [p.ndim for p in decayed["params"]] == [2, 2]
    assert [p.ndim for p in exempt["params"]] == [1, 1, 1, 1]
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.1, 0)
    for group in optimiser.param_groups:
        assert group["lr"] == 0.2
        assert (group["betas"][0] if "betas" in group else group["momentum"]) == 0.8


def test_parameters_without_gradient_are_left_out():
    net = layers()
    net[0].requires_grad_(False)
    optimiser = build_optimiser(net, Optimisation())
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.parameters() if p.requires_grad}


def test_nothing_to_optimise_is_refused():
    with pytest.raises(ValueError, match="nothing to optimise"):
        build_optimiser(layers().requires_grad_(False), Optimisation())


def test_groups_keep_their_share_of_the_learning_rate():
    net = layers()
    groups = [ParameterGroup(list(net[0].parameters()), 0.1), ParameterGroup(list(net[3].parameters()))]
    optimiser = build_optimiser(groups, Optimisation(lr=1.0))
    assert [group["lr"] for group in optimiser.param_groups] == [0.1, 0.1, 1.0, 1.0]
    set_learning_rate(optimiser, 0.5)
    assert [group["lr"] for group in optimiser.param_groups] == [0.05, 0.05, 0.5, 0.5]


def gradients(net: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_lars_follows_algorithm_1_of_the_paper():
    net = layers()
    settings = Optimisation(optimiser="lars", weight_decay=0.1, momentum=0.9)
    optimiser = build_optimiser(net, settings)
    weights = [p.detach().double() for p in net.parameters()]
    velocities = [torch.zeros_like(w) for w in weights]
    for step, lr in enumerate((0.5, 0.4, 0.1)):
        gradients(net, step)
        for i, parameter in enumerate(net.parameters()):
            w, g = weights[i], parameter.grad.double()
            if w.ndim > 1:
                local = 1e-3 * w.norm() / (g.norm() + 0.1 * w.norm())
                velocities[i] = 0.9 * velocities[i] + lr * local * (g + 0.1 * w)
            else:
                velocities[i] = 0.9 * velocities[i] + lr * g
            weights[i] = w - velocities[i]
        set_learning_rate(optimiser, lr)
        optimiser.step()
    for parameter, expected in zip(net.parameters(), weights, strict=True):
        torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-6, rtol=1e-6)


def test_lars_equals_lightly_at_a_constant_learning_rate():
    nets = layers(), layers()
    ours = build_optimiser(nets[0], Optimisation(optimiser="lars", lr=0.3, weight_decay=0.01))
    groups = [
        {"params": [p for p in nets[1].parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in nets[1].parameters() if p.ndim <= 1], "weight_decay": 0},
    ]
    theirs = lightly_lars.LARS(groups, lr=0.3, momentum=0.9)
    for step in range(4):
        for net in nets:
            gradients(net, step)
        ours.step()
        theirs.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_lars_adapts_without_weight_decay_too():
    weight = nn.Parameter(torch.full((2, 2), 3.0))
    optimiser = build_optimiser([weight], Optimisation(optimiser="lars", lr=1.0, momentum=0))
    weight.grad = torch.full((2, 2), 100.0)
    optimiser.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 3.0 * (1 - 1e-3)))


def test_lars_moves_weights_that_are_zero():
    weight = nn.Parameter(torch.zeros(2, 2))
    optimiser = build_optimiser([weight], Optimisation(optimiser="lars", lr=0.5))
    weight.grad = torch.ones(2, 2)
    optimiser.step()
    assert bool((weight == -0.5).all())


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lars", "rmsprop"])
def test_restored_optimiser_continues_bit_for_bit(name):
    settings = Optimisation(optimiser=name, lr=0.1, weight_decay=0.01)
    net, other = layers(), layers()
    optimiser = build_optimiser(net, settings)
    for step in range(3):
        gradients(net, step)
        optimiser.step()
    other.load_state_dict(net.state_dict())
    restored = build_optimiser(other, settings)
    restored.load_state_dict(copy.deepcopy(optimiser.state_dict()))  # loading would share the tensors
    for step in range(3, 5):
        for module, own in ((net, optimiser), (other, restored)):
            gradients(module, step)
            own.step()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_second_beta_reaches_adam():
    for name in ("adam", "adamw"):
        optimiser = build_optimiser(nn.Linear(3, 2), Optimisation(optimiser=name, momentum=0.8, beta2=0.95))
        assert optimiser.defaults["betas"] == (0.8, 0.95)


def test_nesterov_and_rmsprop_follow_their_formulas():
    weight, gradient = torch.full((2, 2), 1.0), torch.full((2, 2), 0.5)
    parameter = nn.Parameter(weight.clone())
    optimiser = build_optimiser([parameter], Optimisation(optimiser="sgd", lr=0.1, momentum=0.9, nesterov=True))
    velocity = torch.zeros(2, 2)
    for _ in range(3):
        parameter.grad = gradient.clone()
        optimiser.step()
        velocity = 0.9 * velocity + gradient
        weight = weight - 0.1 * (gradient + 0.9 * velocity)
    torch.testing.assert_close(parameter.detach(), weight)

    weight, parameter = torch.full((2, 2), 1.0), nn.Parameter(torch.full((2, 2), 1.0))
    optimiser = build_optimiser([parameter], Optimisation(optimiser="rmsprop", lr=0.1, momentum=0.5, beta2=0.9))
    square, velocity = torch.zeros(2, 2), torch.zeros(2, 2)
    for _ in range(3):
        parameter.grad = gradient.clone()
        optimiser.step()
        square = 0.9 * square + 0.1 * gradient**2
        velocity = 0.5 * velocity + gradient / (square.sqrt() + 1e-8)
        weight = weight - 0.1 * velocity
    torch.testing.assert_close(parameter.detach(), weight)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimiser": "adam", "nesterov": True}, "nesterov needs sgd"),
        ({"optimiser": "sgd", "momentum": 0, "nesterov": True}, "nesterov needs sgd"),
        ({"lr": 0.1, "final_lr": 0.2}, "final_lr 0.2 is above lr 0.1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Optimisation(**settings)


def test_settings_that_came_later_are_no_part_of_an_identity_at_their_defaults():
    dumped = Optimisation().model_dump(mode="json")
    assert not {"nesterov", "schedule_per", "power", "factor", "patience", "monitor"} & dumped.keys()
    assert Optimisation.model_validate(dumped) == Optimisation()
    changed = Optimisation(optimiser="sgd", nesterov=True, factor=0.5)
    assert {"nesterov": True, "factor": 0.5}.items() <= changed.model_dump(mode="json").items()
    assert Optimisation.model_validate(changed.model_dump()) == changed


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0, float("nan"), float("inf")])
def test_clipping_gives_the_bits_of_torch_within_the_norm_and_beyond(scale):
    nets = [layers(), layers()]
    for net in nets:
        generator = torch.Generator().manual_seed(3)
        for parameter in list(net.parameters())[:-1]:  # the last has no gradient
            parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    clip(list(nets[0].parameters()), 5.0)
    torch.nn.utils.clip_grad_norm_(nets[1].parameters(), 5.0)
    for ours, theirs in zip(*(list(net.parameters())[:-1] for net in nets), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=0, rtol=0, equal_nan=True)
