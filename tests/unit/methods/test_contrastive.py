"""Contrastive losses against the equations of their papers, number by number."""

import math

import pytest
import torch

from raysweep.methods._contrastive import default_queue_size, in_groups
from raysweep.methods._jigsaw import cut_patches, jigsaw_view_px, patch_px
from raysweep.methods._memory import Queue, SliceBank
from tests.pretraining import NUM_SLICES, build_method, draw_batch, small_run, whole_slices
from tests.unit.methods.reference import (
    cross_entropy_of_positive,
    dot,
    loss_of,
    mean,
    move_apart,
    units,
)

CLOSE = {"abs": 1e-5, "rel": 0}


def queue_loss(method, queries, keys, negatives) -> float:
    temperature = method.settings.temperature
    return mean([cross_entropy_of_positive(q, k, negatives, temperature) for q, k in zip(queries, keys, strict=True)])


@pytest.mark.parametrize("name", ["moco-v1", "moco-v2"])
def test_momentum_contrast_is_equation_1_against_the_queue(name):
    method = build_method(name)
    nets = method.nets
    move_apart(method)
    batch = draw_batch(method)
    queries = units(nets["projector"](nets["encoder"](batch.views[0])))
    keys = units(nets["momentum_projector"](nets["momentum_encoder"](batch.views[1])))
    negatives = nets["queue"].keys.double().tolist()
    assert loss_of(method, batch) == pytest.approx(queue_loss(method, queries, keys, negatives), **CLOSE)
    size = len(negatives)
    pushed = nets["queue"].keys.double().tolist()
    for kept, expected in zip(pushed, keys[-size:], strict=True):
        assert dot(kept, expected) == pytest.approx(1, abs=1e-4)


def test_projectors_of_moco_have_one_layer_and_two():
    layers = {v: [m for m in build_method(v).nets["projector"] if hasattr(m, "weight")] for v in ("moco-v1", "moco-v2")}
    assert [len(layers[v]) for v in ("moco-v1", "moco-v2")] == [1, 2]


def test_moco_v3_is_symmetric_and_scaled_by_twice_the_temperature():
    method = build_method("moco-v3")
    nets, temperature = method.nets, method.settings.temperature
    move_apart(method)
    batch = draw_batch(method)
    q = [units(nets["predictor"](nets["projector"](nets["encoder"](view)))) for view in batch.views]
    k = [units(nets["momentum_projector"](nets["momentum_encoder"](view))) for view in batch.views]
    expected = 0.0
    for queries, keys in ((q[0], k[1]), (q[1], k[0])):
        expected += mean(
            [
                cross_entropy_of_positive(
                    queries[i], keys[i], [keys[j] for j in range(NUM_SLICES) if j != i], temperature
                )
                for i in range(NUM_SLICES)
            ]
        )
    assert loss_of(method, batch) == pytest.approx(2 * temperature * expected, **CLOSE)


def test_instance_discrimination_is_the_softmax_over_all_slices():
    method = build_method("insdis")
    batch = draw_batch(method)
    queries = units(method.nets["projector"](method.nets["encoder"](batch.views[0])))
    bank = method.nets["bank"].vectors.double().tolist()
    expected = mean(
        [
            cross_entropy_of_positive(query, bank[i], bank[:i] + bank[i + 1 :], method.settings.temperature)
            for i, query in enumerate(queries)
        ]
    )
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)
    for i, entry in enumerate(method.nets["bank"].vectors.double().tolist()):
        mixed = [(a + b) / 2 for a, b in zip(bank[i], queries[i], strict=True)]
        length = math.sqrt(dot(mixed, mixed))
        assert entry == pytest.approx([x / length for x in mixed], abs=1e-5)


def test_sampled_negatives_leave_out_a_querys_own_entry():
    method = build_method("insdis", num_negatives=4)
    batch = draw_batch(method)
    queries = units(method.nets["projector"](method.nets["encoder"](batch.views[0])))
    bank = method.nets["bank"].vectors.double().tolist()
    torch.manual_seed(3)
    drawn = torch.randint(NUM_SLICES - 1, (4,)).tolist()
    assert any(d < NUM_SLICES for d in drawn)
    expected = mean(
        [
            cross_entropy_of_positive(q, bank[i], [bank[d] for d in drawn if d != i], method.settings.temperature)
            for i, q in enumerate(queries)
        ]
    )
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)


def shuffled_patches(method, view) -> list[list[float]]:
    """The jigsaw's embedding, the patches cut and ordered one by one from the same draws."""
    nets, side = method.nets, patch_px(method.run.image_size)
    patches = cut_patches(view, side)
    features = nets["jigsaw"]["patch"](nets["encoder"](patches))
    orders = torch.rand(len(view), 9).argsort(1).tolist()
    rows = [torch.cat([features[9 * i + k] for k in order]) for i, order in enumerate(orders)]
    return units(nets["jigsaw"]["all"](torch.stack(rows)))


def test_pirl_weighs_the_whole_view_and_its_jigsaw():
    method = build_method("pirl", jigsaw_weight=0.3)
    batch = draw_batch(method)
    bank = method.nets["bank"].vectors.double().tolist()
    torch.manual_seed(3)
    jigsaw = shuffled_patches(method, batch.views[1])
    whole = units(method.nets["projector"](method.nets["encoder"](batch.views[0])))
    parts = [
        mean(
            [
                cross_entropy_of_positive(q, bank[i], bank[:i] + bank[i + 1 :], method.settings.temperature)
                for i, q in enumerate(queries)
            ]
        )
        for queries in (whole, jigsaw)
    ]
    assert loss_of(method, batch) == pytest.approx(0.7 * parts[0] + 0.3 * parts[1], **CLOSE)


def test_infomin_weighs_two_queries_of_one_key():
    method = build_method("infomin", jigsaw_weight=0.3)
    move_apart(method)
    batch, nets = draw_batch(method), method.nets
    negatives = nets["queue"].keys.double().tolist()
    torch.manual_seed(3)
    jigsaw = shuffled_patches(method, batch.views[2])
    whole = units(nets["projector"](nets["encoder"](batch.views[0])))
    keys = units(nets["momentum_projector"](nets["momentum_encoder"](batch.views[1])))
    parts = [queue_loss(method, queries, keys, negatives) for queries in (whole, jigsaw)]
    assert loss_of(method, batch) == pytest.approx(0.7 * parts[0] + 0.3 * parts[1], **CLOSE)


def test_jigsaw_patches_come_from_their_own_cells():
    size, side = jigsaw_view_px(224), patch_px(224)
    assert (size, side) == (255, 64)
    rows = torch.arange(size).float()[:, None].expand(size, size)
    view = torch.stack((rows, rows.T))[None]
    for index, patch in enumerate(cut_patches(view, side)):
        cell_y, cell_x = index // 3, index % 3
        assert 85 * cell_y <= patch[0].min() <= patch[0].max() < 85 * (cell_y + 1)
        assert 85 * cell_x <= patch[1].min() <= patch[1].max() < 85 * (cell_x + 1)


def test_nnclr_takes_the_nearest_neighbour_as_the_positive():
    method = build_method("nnclr")
    nets, batch, temperature = method.nets, draw_batch(method), method.settings.temperature
    support = nets["support"].keys.double().tolist()
    z = [units(nets["projector"](nets["encoder"](view))) for view in batch.views]
    p = [units(nets["predictor"](nets["projector"](nets["encoder"](view)))) for view in batch.views]
    neighbours = [[max(support, key=lambda s: dot(s, v)) for v in view] for view in z]
    expected = 0.0
    for n, predictions in ((neighbours[0], p[1]), (neighbours[1], p[0])):
        for i in range(NUM_SLICES):
            up = math.exp(dot(n[i], predictions[i]) / temperature)
            down = sum(math.exp(dot(n[i], other) / temperature) for other in predictions)
            expected -= math.log(up / down) / NUM_SLICES / 2
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)


def test_positional_contrast_averages_over_the_slices_of_about_the_same_height():
    method = build_method("positional-contrast", max_distance=0.3)
    batch = draw_batch(method)
    z = units(method.nets["projector"](method.nets["encoder"](torch.cat(list(batch.views)))))
    heights = batch.positions.double().tolist() * 2
    temperature, total = method.settings.temperature, 0.0
    for i in range(2 * NUM_SLICES):
        others = [j for j in range(2 * NUM_SLICES) if j != i]
        down = sum(math.exp(dot(z[i], z[j]) / temperature) for j in others)
        near = [j for j in others if abs(heights[i] - heights[j]) < 0.3]
        assert 1 < len(near) < len(others)
        total -= mean([math.log(math.exp(dot(z[i], z[j]) / temperature) / down) for j in near])
    assert loss_of(method, batch) == pytest.approx(total / (2 * NUM_SLICES), **CLOSE)


@pytest.mark.parametrize("name", ["pcl-v1", "pcl-v2"])
def test_prototypical_contrast_is_equation_11_with_concentrations_of_equation_12(name):
    method = build_method(name, slices_per_cluster=[4, 3], concentration_smoothing=10.0)
    move_apart(method)
    nets, batch, settings = method.nets, draw_batch(method, step=10), method.settings
    torch.manual_seed(5)
    method.before_epoch(5, whole_slices(batch))
    for branch in ("momentum_encoder", "momentum_projector"):
        nets[branch].eval()
    vectors = units(nets["momentum_projector"](nets["momentum_encoder"](batch.views[0])))
    for branch in ("momentum_encoder", "momentum_projector"):
        nets[branch].train()
    queries = units(nets["projector"](nets["encoder"](batch.views[0])))
    keys = units(nets["momentum_projector"](nets["momentum_encoder"](batch.views[1])))
    expected = queue_loss(method, queries, keys, nets["queue"].keys.double().tolist())
    for clustering in nets["clusterings"]:
        centres, clusters = clustering.centres.double().tolist(), clustering.clusters.tolist()
        for i, v in enumerate(vectors):
            assert dot(v, centres[clusters[i]]) == pytest.approx(max(dot(v, c) for c in centres), abs=1e-5)
        phi = concentrations(vectors, centres, clusters, 10.0, settings.temperature)
        assert clustering.concentration.tolist() == pytest.approx(phi, rel=1e-4)
        for i, q in enumerate(queries):
            up = math.exp(dot(q, centres[clusters[i]]) / phi[clusters[i]])
            down = sum(math.exp(dot(q, c) / f) for c, f in zip(centres, phi, strict=True))
            expected -= math.log(up / down) / NUM_SLICES / 2
    assert loss_of(method, batch) == pytest.approx(expected, rel=0, abs=2e-5)


def concentrations(vectors, centres, clusters, alpha: float, temperature: float) -> list[float]:
    widths = []
    for k, centre in enumerate(centres):
        members = [v for v, c in zip(vectors, clusters, strict=True) if c == k]
        distance = sum(math.dist(v, centre) for v in members)
        widths.append(distance / (len(members) * math.log(len(members) + alpha)) if len(members) > 1 else None)
    widest = max(w for w in widths if w is not None)
    filled = torch.tensor([widest if w is None else w for w in widths], dtype=torch.float64)
    clipped = filled.clamp(filled.quantile(0.1), filled.quantile(0.9))
    return (clipped * temperature / clipped.mean()).tolist()


def test_prototypes_wait_for_the_warm_up():
    method = build_method("pcl-v1", warmup_share=0.5)
    assert method.warmup_epochs == 5
    batch = draw_batch(method, step=9)
    method.before_epoch(4, iter(()))  # asks for no slices
    assert float(method.loss(batch)["prototype_loss"]) == 0
    method.before_epoch(5, whole_slices(batch))
    assert float(method.loss(draw_batch(method, step=10))["prototype_loss"]) > 0


def test_queue_replaces_the_oldest_first():
    queue = Queue(5, 2)
    for number in range(4):
        queue.push(torch.full((2, 2), float(number)))
    assert sorted(queue.keys[:, 0].tolist()) == [1, 2, 2, 3, 3]
    queue.push(torch.arange(16.0).reshape(8, 2))
    assert sorted(queue.keys[:, 0].tolist()) == [6, 8, 10, 12, 14]


def test_bank_moves_only_the_slices_it_is_given():
    bank = SliceBank(6, 3)
    before = bank.vectors.clone()
    bank.blend(torch.tensor([4, 1]), torch.tensor([[1.0, 0, 0], [0, 1, 0]]), 0.0)
    assert torch.equal(bank.vectors[[0, 2, 3, 5]], before[[0, 2, 3, 5]])
    assert bank.vectors[[4, 1]].tolist() == [[1, 0, 0], [0, 1, 0]]


def test_queue_is_at_most_half_the_pack():
    assert default_queue_size(65536, 1000) == 500
    assert default_queue_size(65536, 10**6) == 65536
    assert len(build_method("moco-v1", run=small_run(num_slices=40)).nets["queue"].keys) == 20


@pytest.mark.parametrize("shuffled", [False, True])
def test_groups_have_statistics_of_their_own_and_keep_the_order(shuffled):
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    got = in_groups(lambda part: part - part.mean(0), x, 5, shuffled=shuffled)
    torch.manual_seed(0)
    order = torch.randperm(10) if shuffled else torch.arange(10)
    for group in order.split(5):
        torch.testing.assert_close(got[group], x[group] - x[group].mean(0))
    assert torch.equal(in_groups(lambda part: part, x, 6), x)
