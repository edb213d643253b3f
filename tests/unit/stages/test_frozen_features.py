"""Features of a frozen encoder are computed once, and sharing them changes no result."""

import pytest
import torch
from torch import nn

from raysweep.planning import build_plan
from raysweep.results.read import store_tables
from raysweep.results.schemas import TABLES
from raysweep.settings import Augmentation, Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.stages import frozen_features
from raysweep.stages.frozen_features import FeatureCache, FrozenEncoder, content_keys, leaves_whole
from raysweep.stages.run import run_stage
from raysweep.store import Store
from raysweep.sweep import _facts
from raysweep.tasks._architectures import Design, build_network

WHOLE = {"crop_scale": [1, 1], "flip_p": 0, "jitter_p": 0, "blur_p": 0}


class Net(nn.Module):
    """Returns its input and a map, as segmentation encoders do, and counts the slices it saw."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 2, 3).requires_grad_(False)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return [x, self.conv(x)]


def run_batch(net, frozen, x):
    with frozen.known_as(content_keys(x)):
        return net(x)


@pytest.mark.parametrize("inference", [True, False])
def test_each_slice_is_encoded_once_and_given_back_in_order(inference):
    net = Net()
    x = torch.randn(5, 1, 8, 8)
    plain = net.conv(x)
    frozen = FrozenEncoder(net, "float32", 10**6, FeatureCache())
    with torch.inference_mode(inference):
        run_batch(net, frozen, x[:3])
    given, maps = run_batch(net, frozen, x.flip(0))
    assert net.seen == 5
    assert torch.equal(given, x.flip(0))
    torch.testing.assert_close(maps, plain.flip(0))
    weight = torch.ones(1, requires_grad=True)  # a decoder after features that inference came upon first
    (maps * weight).sum().backward()
    assert weight.grad is not None


def test_features_do_not_depend_on_the_batch_that_needs_them_first():
    x = torch.randn(6, 1, 8, 8)
    alone, together = Net(), Net()
    first = FrozenEncoder(alone, "float32", 10**6, FeatureCache())
    expected = torch.cat([run_batch(alone, first, one[None])[1] for one in x])
    assert torch.equal(run_batch(together, FrozenEncoder(together, "float32", 0, FeatureCache()), x)[1], expected)


def test_another_encoder_arithmetic_or_size_shares_nothing():
    cache, x = FeatureCache(), torch.zeros(1, 1, 8, 8)
    nets = [Net(0), Net(1), Net(0), Net(0)]
    for net, inputs in zip(nets, ["float32", "float32", "bfloat16", "float32"], strict=True):
        run_batch(net, FrozenEncoder(net, inputs, 10**6, cache), x)
    assert [net.seen for net in nets] == [1, 1, 1, 0]
    run_batch(nets[3], FrozenEncoder(nets[3], "float32", 10**6, cache), torch.zeros(1, 1, 9, 9))


def test_an_encoder_that_returns_one_tensor_still_does_when_all_is_known():
    cache, x = FeatureCache(), torch.randn(3, 1, 8, 8)
    nets = [nn.Conv2d(1, 2, 3).requires_grad_(False) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    outputs = [run_batch(net, FrozenEncoder(net, "", 10**6, cache), x) for net in nets]
    assert torch.equal(outputs[0], outputs[1])
    assert outputs[1].shape == (3, 2, 6, 6)


@pytest.mark.parametrize(
    ("encoder", "architecture", "options"),
    [
        ("test_resnet", "unet", {}),
        ("test_vit", "dpt", {}),
        ("test_vit", "dpt", {"class_token": False, "global_pool": "avg"}),
    ],
)
def test_networks_give_the_masks_that_they_give_without_shared_features(encoder, architecture, options):
    """Encoders return maps, and plain transformers maps and their prefix tokens, or None where they have none."""
    torch.manual_seed(0)
    built = build_encoder(Backbone(encoder=encoder, options=options))
    network = build_network(Design(architecture, 2, (16, 16, 8, 8, 8), 32), built).eval()
    inner, x = network.get_submodule("encoder"), torch.randn(3, 1, 64, 64)
    inner.requires_grad_(False)
    expected = network(x)
    frozen = FrozenEncoder(inner, "", 10**8, FeatureCache())
    for _ in range(2):
        with frozen.known_as(content_keys(x)):
            torch.testing.assert_close(network(x), expected)


def test_features_stay_within_the_limit_and_the_oldest_encoder_gives_way():
    cache, x = FeatureCache(), torch.randn(4, 1, 8, 8)
    each = Net()(x[:1])[1].nbytes
    first, second = Net(0), Net(1)
    a = FrozenEncoder(first, "", 3 * each, cache)
    run_batch(first, a, x)
    run_batch(first, a, x)
    assert first.seen == 4 + 1  # three were kept
    b = FrozenEncoder(second, "", 3 * each, cache)
    run_batch(second, b, x[:2])
    run_batch(second, b, x[:2])
    assert second.seen == 2
    assert sum(cache._bytes.values()) <= 3 * each


def test_unnamed_inputs_are_encoded_every_time():
    net = Net()
    FrozenEncoder(net, "", 10**6, FeatureCache())
    for _ in range(2):
        net(torch.zeros(3, 1, 8, 8))
    assert net.seen == 6


@pytest.mark.parametrize(
    "change",
    [{}, {"flip_p": 0.1}, {"crop_scale": [0.9, 1]}, {"rotation_deg": 1}, {"jitter_p": 1}, {"cutout_p": 1}],
)
def test_only_augmentation_that_changes_nothing_leaves_slices_whole(change):
    assert leaves_whole(Augmentation.model_validate(WHOLE | change)) == (not change)


@pytest.mark.parametrize("augmentation", [WHOLE, {"flip_p": 0.5}])
def test_stages_that_share_features_give_the_bits_of_stages_that_do_not(tiny_study, tmp_path, augmentation):
    """Two annotation counts of one frozen encoder, in one process and each in a process of its own."""
    changes = {
        "grid.source": ["random"],
        "grid.method": [],
        "grid.pretrain_epochs": [],
        "grid.annotations": [3, 4],
        "grid.tuning": ["frozen"],
        "tasks.heart.training.augmentation": augmentation,
    }
    found, encoded = [], []
    for shares in (True, False):
        frozen_features.forget_all()
        store = Store(tmp_path / str(shares)).prepare()
        study = tiny_study(changes)
        for stage in build_plan(study, _facts(study, store)).stages.values():
            list(run_stage(stage, store, threads=1, attempt=1))
            encoded.append(sum(len(known) for known in frozen_features._CACHE._by_encoder.values()))
            if not shares:
                frozen_features.forget_all()
        tables = store_tables(store)
        found.append({name: tables[name].select(TABLES[name].facts).to_pylist() for name in ("cases", "epochs")})
    assert found[0] == found[1]
    trained = 3 if augmentation == WHOLE else 0
    assert encoded[0] == 16 + trained  # every val and test slice once, and what training used
    assert encoded[1] == encoded[0] + (trained and 1)  # the second stage brought one more slice
