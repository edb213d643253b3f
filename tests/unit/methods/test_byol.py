import pytest
import torch

from raysweep.methods import Batch
from raysweep.methods.byol import BYOL, BYOLSettings
from tests.pretraining import build_method


def method(**settings) -> BYOL:
    return build_method("byol", **settings)


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
    got = float(byol.loss(Batch(some_views(), torch.arange(6)))["loss"].detach())
    nets, expected = byol.nets, 0.0
    for x, other in (some_views(), some_views()[::-1]):
        q = nets["predictor"](nets["projector"](nets["encoder"](x))).double()
        z = nets["momentum_projector"](nets["momentum_encoder"](other)).double()
        q = q / (q**2).sum(1, keepdim=True) ** 0.5
        z = z / (z**2).sum(1, keepdim=True) ** 0.5
        expected += float(((q - z) ** 2).sum(1).mean().detach())
    assert got == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("hand_on", "name"), [("momentum", "momentum_encoder"), ("online", "encoder")])
def test_encoder_handed_on_is_the_one_in_the_settings(hand_on, name):
    byol = method(hand_on=hand_on)
    assert byol.encoder() is byol.nets[name]


def test_views_differ_in_blur_and_solarisation_alone():
    first, second = (view.augmentation for view in BYOLSettings().views(224))
    assert (first.blur_p, second.blur_p) == (1.0, 0.1)
    assert (first.solarise_p, second.solarise_p) == (0.0, 0.2)
    assert first.model_copy(update={"blur_p": 0.1, "solarise_p": 0.2}) == second
