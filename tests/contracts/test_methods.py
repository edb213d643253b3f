"""What every pretraining method must do, whichever it is."""

import copy
import io

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raysweep import registry
from raysweep.identity import canonical_json
from raysweep.methods._momentum import MomentumMethod
from raysweep.settings import CONVOLUTIONAL, HIERARCHICAL, TRANSFORMER, Backbone
from raysweep.sources.encoder import build_encoder
from tests.pretraining import (
    CONV,
    NUM_SLICES,
    VIT,
    backbone_for,
    build_method,
    draw_batch,
    optimiser_of,
    small_run,
    train,
    whole_slices,
)

NAMES = registry.names("methods")
SWIN = Backbone(
    encoder="swin_tiny_patch4_window7_224",
    options={"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
)
ROTARY = Backbone(
    encoder="vit_small_patch16_dinov3", options={"patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
)
WIDER_VIT = Backbone(encoder="vit_tiny_patch16_224", options={"depth": 3})
pytestmark = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize("channels", [1, 3])
def test_loss_is_finite_and_reaches_the_encoder(name, channels):
    method = build_method(name, backbone=backbone_for(name, channels))
    result = method.loss(draw_batch(method, channels=channels))
    result["loss"].backward()
    assert result["loss"].shape == ()
    assert result["loss"].dtype == torch.float32
    assert all(bool(torch.isfinite(value)) for value in result.values())
    assert not any(value.requires_grad for key, value in result.items() if key != "loss")
    gradients = [p.grad for p in method.nets["encoder"].parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0


def test_gradients_reach_everything_that_is_trained_and_no_momentum_copy(name):
    method = build_method(name)
    batch = draw_batch(method)
    method.before_epoch(0, whole_slices(batch))
    method.loss(batch)["loss"].backward()
    trained = {id(parameter) for parameter in method.trainable()}
    for key, parameter in method.nets.named_parameters():
        if id(parameter) in trained:
            assert parameter.grad is not None, key
        else:
            assert parameter.grad is None, key
        if key.startswith("momentum_"):
            assert id(parameter) not in trained, key


def test_momentum_copies_start_equal_and_follow_by_their_formula(name):
    method = build_method(name)
    if not isinstance(method, MomentumMethod):
        assert not [key for key in method.nets if key.startswith("momentum_")]
        pytest.skip("it has no momentum encoder")
    copies = [key for key in method.nets if key.startswith("momentum_")]
    assert "momentum_encoder" in copies
    for key in copies:
        state, original = method.nets[key].state_dict(), method.nets[key.removeprefix("momentum_")].state_dict()
        assert all(torch.equal(state[entry], original[entry]) for entry in state)
    settings = method.settings
    for step in (0, 7, 19):
        with torch.no_grad():
            for parameter in method.nets["encoder"].parameters():
                parameter.add_(0.1)
        before = copy.deepcopy(method.nets.state_dict())
        method.after_step(step)
        tau = (
            settings.tau_end
            - (settings.tau_end - settings.tau_start)
            * (1 + torch.cos(torch.tensor(torch.pi * step / 20, dtype=torch.float64)).item())
            / 2
        )
        for key in copies:
            for entry, parameter in method.nets[key].named_parameters():
                online = method.nets[key.removeprefix("momentum_")].get_parameter(entry)
                expected = tau * before[f"{key}.{entry}"] + (1 - tau) * online
                torch.testing.assert_close(parameter, expected, atol=1e-6, rtol=1e-5)


def test_features_of_the_batch_are_kept_without_gradient(name):
    method = build_method(name)
    method.loss(draw_batch(method))
    assert method.features.shape[1] == method.num_features
    assert len(method.features) % NUM_SLICES == 0
    assert method.features.dtype == torch.float32
    assert not method.features.requires_grad


SLOW = {"tico": (16, 50)}
"""Steps in which a method's own state fills, so that its loss rises whatever is learnt, and steps to learn in."""


def test_a_few_steps_on_fixed_views_lower_the_loss(name):
    method = build_method(name)
    settling, steps = SLOW.get(name, (0, 13))
    losses = train(method, optimiser_of(method, 3e-3), draw_batch(method), range(settling + steps))[settling:]
    # Means of three, for methods hide other patches in every step; from the third step on, when every part has set in;
    # and the lowest mean, for a moving teacher's own entropy comes and goes.
    means = [sum(losses[first : first + 3]) / 3 for first in range(2, steps - 2)]
    assert min(means[2:]) < means[0] - 0.03 * abs(means[0])


def test_restored_state_continues_bit_for_bit(name):
    method = build_method(name)
    optimiser = optimiser_of(method)
    batch = draw_batch(method)
    train(method, optimiser, batch, range(3))
    stream = io.BytesIO()
    torch.save({"method": method.state_dict(), "optimiser": optimiser.state_dict()}, stream)
    rng = torch.get_rng_state()
    expected = train(method, optimiser, batch, range(3, 5))

    stream.seek(0)
    state = torch.load(stream, weights_only=True)
    restored = build_method(name, seed=99)
    restored.load_state_dict(state["method"])
    own = optimiser_of(restored)
    own.load_state_dict(state["optimiser"])
    torch.set_rng_state(rng)
    assert train(restored, own, batch, range(3, 5)) == expected
    for key, value in method.nets.state_dict().items():
        assert torch.equal(value, restored.nets.state_dict()[key]), key


def test_bfloat16_autocast_and_channels_last_keep_the_loss_in_float32(name):
    method = build_method(name)
    batch = draw_batch(method)
    reference = copy.deepcopy(method.nets.state_dict())
    torch.manual_seed(1)
    expected = float(method.loss(batch)["loss"].detach())
    method.nets.load_state_dict(reference)
    method.nets.to(memory_format=torch.channels_last)
    batch.views[:] = [view.contiguous(memory_format=torch.channels_last) for view in batch.views]
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        result = method.loss(batch)
    result["loss"].backward()
    assert result["loss"].dtype == torch.float32
    assert float(result["loss"].detach()) == pytest.approx(expected, rel=0.1, abs=0.1)


def test_encoder_handed_on_loads_strictly_into_a_fresh_one(name):
    fresh, handed = build_encoder(backbone_for(name)), build_method(name).encoder().eval()
    fresh.load_state_dict(handed.state_dict(), strict=True)
    slices = torch.rand(2, 1, 32, 32)
    assert torch.equal(fresh.eval()(slices), handed(slices))


def test_every_type_of_encoder_is_trained_or_refused(name):
    types = registry.load("methods", name).METHOD.encoder_types
    for kind, backbone in ((CONVOLUTIONAL, CONV), (TRANSFORMER, VIT), (TRANSFORMER, ROTARY), (HIERARCHICAL, SWIN)):
        if kind not in types:
            with pytest.raises(Exception, match=f"method '{name}' trains .* encoders, but .* is {kind}"):
                build_method(name, backbone=backbone)
            with pytest.raises(Exception, match=f"is {kind}"):
                registry.load("methods", name).METHOD.check_backbone(backbone, 64)
            continue
        method = build_method(name, backbone=backbone)
        loss = method.loss(draw_batch(method))["loss"]
        loss.backward()
        assert bool(torch.isfinite(loss))


def test_cost_is_the_arithmetic_of_a_step_relative_to_a_supervised_one(name):
    """FLOPs of forward and backward passes at 224 pixels, with heads so narrow that they hardly count."""
    kind = registry.load("methods", name).METHOD
    flops = {}
    for which in (name, "supervised"):
        fields = registry.load("methods", which).METHOD.Settings.model_fields
        given = {k: f.default for k, f in fields.items() if k == "num_small_crops"}
        given |= {k: 8 for k in fields if k == "decoder_features"}
        backbone = CONV if CONVOLUTIONAL in kind.encoder_types else WIDER_VIT
        method = build_method(which, backbone=backbone, run=small_run(image_size=224, num_slices=8), **given)
        batch = draw_batch(method, num=2, step=19)
        method.before_epoch(0, whole_slices(batch))
        with FlopCounterMode(display=False) as counter:
            method.before_epoch(9, whole_slices(batch))  # one step an epoch, of two slices
            method.loss(batch)["loss"].backward()
        flops[which] = counter.get_total_flops()
    assert kind.cost == pytest.approx(flops[name] / flops["supervised"], rel=0.15)


def test_declarations_are_complete(name):
    cls = registry.load("methods", name).METHOD
    assert cls.name == name
    assert cls.family
    assert "arXiv:" in cls.paper
    assert cls.recipe >= 1
    assert cls.cost > 0
    assert cls.encoder_types <= {CONVOLUTIONAL, TRANSFORMER, HIERARCHICAL}
    assert registry.describe("methods")[name].endswith(".")


def test_default_settings_have_an_identity_and_survive_a_round_trip(name):
    cls = registry.load("methods", name).METHOD.Settings
    dumped = cls().model_dump(mode="json")
    canonical_json(dumped)
    assert cls.model_validate(dumped) == cls()
    assert len(cls().views(224)) >= 1
