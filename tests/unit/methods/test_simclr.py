import math

import pytest
import torch
from pydantic import ValidationError

from raysweep.methods import Batch
from raysweep.methods.simclr import SimCLR, SimCLRSettings
from raysweep.sources.encoder import build_encoder
from tests.pretraining import CONV, small_run


def method(**settings) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(SimCLRSettings(**settings), build_encoder(CONV), small_run())


def nt_xent(z: list[list[float]], temperature: float) -> float:
    """Equation 1 averaged over both orders of all pairs; z holds N first views, then the N second views."""
    num = len(z)

    def similarity(i: int, j: int) -> float:
        dot = sum(a * b for a, b in zip(z[i], z[j], strict=True))
        return dot / math.sqrt(sum(a * a for a in z[i])) / math.sqrt(sum(b * b for b in z[j]))

    total = 0.0
    for i in range(num):
        positive = math.exp(similarity(i, (i + num // 2) % num) / temperature)
        everything = sum(math.exp(similarity(i, k) / temperature) for k in range(num) if k != i)
        total -= math.log(positive / everything)
    return total / num


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_equals_equation_1_of_the_paper(temperature):
    simclr = method(temperature=temperature)
    views = [torch.rand(6, 1, 32, 32) for _ in range(2)]
    got = simclr.loss(Batch(views, torch.arange(6)))["loss"]
    z = simclr.nets["projector"](simclr.nets["encoder"](torch.cat(views)))
    assert float(got.detach()) == pytest.approx(nt_xent(z.double().tolist(), temperature), abs=1e-5)


def test_every_parameter_receives_a_gradient():
    simclr = method()
    simclr.loss(Batch([torch.rand(6, 1, 32, 32) for _ in range(2)], torch.arange(6)))["loss"].backward()
    assert all(p.grad is not None for p in simclr.trainable())
    assert len(simclr.trainable()) == len(list(simclr.nets.parameters()))


def test_projector_has_two_layers_of_the_asked_sizes():
    sizes = lambda net: [tuple(p.shape) for p in net.parameters() if p.ndim == 2]  # noqa: E731
    features = method().num_features
    assert sizes(method().nets["projector"]) == [(features, features), (128, features)]
    custom = method(hidden_features=20, output_features=7)
    assert sizes(custom.nets["projector"]) == [(20, features), (7, 20)]


def test_jitter_strength_scales_brightness_and_contrast_of_both_views():
    first, second = SimCLRSettings(jitter_strength=0.5).views(224)
    assert first == second
    assert (first.augmentation.brightness, first.augmentation.contrast, first.augmentation.gamma) == (0.4, 0.4, 0.4)
    assert first.augmentation.crop_scale == (0.08, 1.0)


def test_jitter_strength_that_leaves_the_range_of_brightness_is_refused():
    with pytest.raises(ValidationError, match="brightness"):
        SimCLRSettings(jitter_strength=2)
