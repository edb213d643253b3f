"""What every pretraining method must do, whichever it is."""

import copy
import io

import pytest
import torch

from raysweep import registry
from raysweep.data import augment
from raysweep.identity import canonical_json
from raysweep.methods._method import Method
from raysweep.settings import Backbone, Optimisation
from raysweep.sources.encoder import build_encoder
from raysweep.stages.optimisation import build_optimiser

NUM_SLICES, SIZE_PX = 12, 32
NAMES = registry.names("methods")
pytestmark = pytest.mark.parametrize("name", NAMES)


def build(name: str, channels: int = 1, seed: int = 0, total_steps: int = 20) -> Method:
    torch.manual_seed(seed)
    cls = registry.load("methods", name).METHOD
    encoder = build_encoder(Backbone(encoder="test_resnet", channels=channels))
    return cls(cls.Settings(), encoder, num_slices=NUM_SLICES, total_steps=total_steps)


def draw_views(method: Method, generator: torch.Generator, channels: int = 1) -> list[torch.Tensor]:
    slices = torch.rand(NUM_SLICES, channels, 40, 40, generator=torch.Generator().manual_seed(7))
    shapes = torch.tensor([(40, 40)] * NUM_SLICES)
    return [
        augment.apply(slices, augment.draw(view.augmentation, shapes, generator), view.size_px or SIZE_PX)
        for view in method.views()
    ]


def optimiser_of(method: Method) -> torch.optim.Optimizer:
    return build_optimiser(method.trainable(), Optimisation(lr=1e-3))


def train(method: Method, optimiser, views, steps: range) -> list[float]:
    losses = []
    for step in steps:
        result = method.loss(views, torch.arange(NUM_SLICES))
        optimiser.zero_grad(set_to_none=True)
        result["loss"].backward()
        optimiser.step()
        method.after_step(step)
        losses.append(float(result["loss"].detach()))
    return losses


@pytest.mark.parametrize("channels", [1, 3])
def test_loss_is_finite_and_reaches_the_encoder(name, channels):
    method = build(name, channels)
    result = method.loss(draw_views(method, torch.Generator().manual_seed(0), channels), torch.arange(NUM_SLICES))
    result["loss"].backward()
    assert result["loss"].shape == ()
    assert result["loss"].dtype == torch.float32
    assert all(bool(torch.isfinite(value)) for value in result.values())
    assert not any(value.requires_grad for key, value in result.items() if key != "loss")
    gradients = [p.grad for p in method.nets["encoder"].parameters()]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0


def test_features_of_the_batch_are_kept_without_gradient(name):
    method = build(name)
    method.loss(draw_views(method, torch.Generator().manual_seed(0)), torch.arange(NUM_SLICES))
    assert method.features.shape[1] == method.num_features
    assert len(method.features) % NUM_SLICES == 0
    assert method.features.dtype == torch.float32
    assert not method.features.requires_grad


def test_a_few_steps_on_fixed_views_lower_the_loss(name):
    method = build(name)
    views = draw_views(method, torch.Generator().manual_seed(0))
    losses = train(method, optimiser_of(method), views, range(12))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_restored_state_continues_bit_for_bit(name):
    method = build(name)
    optimiser = optimiser_of(method)
    views = draw_views(method, torch.Generator().manual_seed(0))
    train(method, optimiser, views, range(3))
    stream = io.BytesIO()
    torch.save({"method": method.state_dict(), "optimiser": optimiser.state_dict()}, stream)
    rng = torch.get_rng_state()
    expected = train(method, optimiser, views, range(3, 5))

    stream.seek(0)
    state = torch.load(stream, weights_only=True)
    restored = build(name, seed=99)
    restored.load_state_dict(state["method"])
    own = optimiser_of(restored)
    own.load_state_dict(state["optimiser"])
    torch.set_rng_state(rng)
    assert train(restored, own, views, range(3, 5)) == expected
    for key, value in method.nets.state_dict().items():
        assert torch.equal(value, restored.nets.state_dict()[key]), key


def test_equal_seeds_train_equally(name):
    losses = []
    for _ in range(2):
        method = build(name)
        views = draw_views(method, torch.Generator().manual_seed(0))
        losses.append(train(method, optimiser_of(method), views, range(2)))
    assert losses[0] == losses[1]


def test_bfloat16_autocast_and_channels_last_keep_the_loss_in_float32(name):
    method = build(name)
    views = draw_views(method, torch.Generator().manual_seed(0))
    reference = copy.deepcopy(method.nets.state_dict())
    expected = float(method.loss(views, torch.arange(NUM_SLICES))["loss"].detach())
    method.nets.load_state_dict(reference)
    method.nets.to(memory_format=torch.channels_last)
    views = [view.contiguous(memory_format=torch.channels_last) for view in views]
    with torch.autocast("cpu", torch.bfloat16):
        result = method.loss(views, torch.arange(NUM_SLICES))
    result["loss"].backward()
    assert result["loss"].dtype == torch.float32
    assert float(result["loss"].detach()) == pytest.approx(expected, rel=0.1, abs=0.1)


def test_encoder_handed_on_loads_strictly_into_a_fresh_one(name):
    fresh = build_encoder(Backbone(encoder="test_resnet"))
    fresh.load_state_dict(build(name).encoder().state_dict(), strict=True)


def test_declarations_are_complete(name):
    cls = registry.load("methods", name).METHOD
    assert cls.name == name
    assert cls.family
    assert "arXiv:" in cls.paper
    assert cls.recipe >= 1
    assert registry.describe("methods")[name].endswith(".")


def test_default_settings_have_an_identity_and_survive_a_round_trip(name):
    cls = registry.load("methods", name).METHOD.Settings
    dumped = cls().model_dump(mode="json")
    canonical_json(dumped)
    assert cls.model_validate(dumped) == cls()
    assert len(cls().views()) >= 1
