import pytest
import torch

from raysweep.methods._momentum import cosine_tau
from raysweep.methods.byol import BYOL, BYOLSettings
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder


def method(**settings) -> BYOL:
    torch.manual_seed(0)
    encoder = build_encoder(Backbone(encoder="test_resnet"))
    settings = {"hidden_features": 32, "output_features": 16, **settings}
    return BYOL(BYOLSettings(**settings), encoder, num_slices=6, total_steps=10)


def some_views() -> list[torch.Tensor]:
    return [torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(2)]


def move_apart(byol: BYOL) -> None:
    """Give the momentum branch weights of its own, so that a mix-up of the branches shows."""
    with torch.no_grad():
        for name in ("momentum_encoder", "momentum_projector"):
            for p in byol.nets[name].parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))


def test_loss_equals_equation_2_of_the_paper_over_both_pairings():
    byol = method()
    move_apart(byol)
    got = float(byol.loss(some_views(), torch.arange(6))["loss"].detach())
    nets, expected = byol.nets, 0.0
    for x, other in (some_views(), some_views()[::-1]):
        q = nets["predictor"](nets["projector"](nets["encoder"](x))).double()
        z = nets["momentum_projector"](nets["momentum_encoder"](other)).double()
        q = q / (q**2).sum(1, keepdim=True) ** 0.5
        z = z / (z**2).sum(1, keepdim=True) ** 0.5
        expected += float(((q - z) ** 2).sum(1).mean().detach())
    assert got == pytest.approx(expected, abs=1e-5)


def test_gradients_reach_the_online_branch_and_never_the_momentum_branch():
    byol = method()
    byol.loss(some_views(), torch.arange(6))["loss"].backward()
    for name, p in byol.nets.named_parameters():
        if name.startswith("momentum_"):
            assert p.grad is None, name
            assert not p.requires_grad, name
        else:
            assert p.grad is not None, name
    trained = {id(p) for p in byol.trainable()}
    assert trained == {id(p) for n in ("encoder", "projector", "predictor") for p in byol.nets[n].parameters()}


@pytest.mark.parametrize("step", [0, 3, 9])
def test_momentum_branch_follows_the_online_one_by_the_formula_of_the_paper(step):
    byol = method(tau_start=0.9)
    move_apart(byol)
    names = ("encoder", "projector")
    before = {n: [p.clone() for p in byol.nets[f"momentum_{n}"].parameters()] for n in names}
    byol.after_step(step)
    tau = cosine_tau(0.9, step, 10)
    for n in names:
        moved = byol.nets[f"momentum_{n}"].parameters()
        for old, new, online in zip(before[n], moved, byol.nets[n].parameters(), strict=True):
            torch.testing.assert_close(new, tau * old + (1 - tau) * online, atol=1e-6, rtol=1e-5)


def test_momentum_branch_starts_equal_to_the_online_one():
    nets = method().nets
    for n in ("encoder", "projector"):
        states = nets[n].state_dict(), nets[f"momentum_{n}"].state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(("hand_on", "name"), [("momentum", "momentum_encoder"), ("online", "encoder")])
def test_encoder_handed_on_is_the_one_in_the_settings(hand_on, name):
    byol = method(hand_on=hand_on)
    assert byol.encoder() is byol.nets[name]


def test_views_differ_in_blur_and_solarisation_alone():
    first, second = (view.augmentation for view in BYOLSettings().views())
    assert (first.blur_p, second.blur_p) == (1.0, 0.1)
    assert (first.solarise_p, second.solarise_p) == (0.0, 0.2)
    assert first.model_copy(update={"blur_p": 0.1, "solarise_p": 0.2}) == second
