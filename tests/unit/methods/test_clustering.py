"""Clustering losses against the equations of their papers, number by number."""

import pytest
import torch

from raysweep.methods._clustering import default_num_clusters, sinkhorn, spherical_kmeans
from tests.pretraining import NUM_SLICES, build_method, draw_batch, whole_slices
from tests.unit.methods import reference
from tests.unit.methods.reference import dot, log_softmax, loss_of, units

CLOSE = {"abs": 1e-5, "rel": 0}


def projections_of(method, batch) -> list[list[list[float]]]:
    """Unit projections of each view: large crops pass together, small ones together, the projector sees all."""
    nets, views = method.nets, batch.views
    parts = [nets["encoder"](torch.cat(list(views[:2]))), nets["encoder"](torch.cat(list(views[2:])))]
    flat = units(nets["projector"](torch.cat(parts)))
    return [flat[i * NUM_SLICES : (i + 1) * NUM_SLICES] for i in range(len(views))]


def swapped_prediction(method, batch, queue=None) -> float:
    z = projections_of(method, batch)
    prototypes = method.nets["prototypes"].weight.double().tolist()
    scores = [[[dot(v, c) for c in prototypes] for v in view] for view in z]
    total, settings = 0.0, method.settings
    for index in range(2):
        joined = scores[index] + ([] if queue is None else [[dot(v, c) for c in prototypes] for v in queue[index]])
        q = reference.sinkhorn(joined, settings.epsilon, settings.sinkhorn_rounds)[:NUM_SLICES]
        for other in range(len(z)):
            if other == index:
                continue
            for assigned, own in zip(q, scores[other], strict=True):
                log_p = log_softmax([s / settings.temperature for s in own])
                total -= dot(assigned, log_p) / NUM_SLICES / (len(z) - 1) / 2
    return total


def test_swav_predicts_swapped_balanced_assignments():
    method = build_method("swav", queue_size=0)
    batch = draw_batch(method)
    expected = swapped_prediction(method, batch)
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)


def test_swav_balances_over_its_queue_once_that_is_used():
    method = build_method("swav", queue_size=8, queue_from=0.5)
    queues = [queue.keys.double().tolist() for queue in method.nets["queues"]]
    early, late = draw_batch(method, step=9), draw_batch(method, step=10)
    without, joined = swapped_prediction(method, early), swapped_prediction(method, early, queues)
    assert without != pytest.approx(joined, abs=1e-3)
    state = {key: value.clone() for key, value in method.nets.state_dict().items()}
    assert loss_of(method, early) == pytest.approx(without, **CLOSE)
    assert not torch.equal(method.nets["queues"][0].keys, state["queues.0.keys"])
    method.nets.load_state_dict(state)
    assert loss_of(method, late) == pytest.approx(joined, **CLOSE)


@pytest.mark.parametrize(("step", "trained"), [(0, False), (10, True)])
def test_prototypes_of_swav_are_frozen_at_first_and_stay_on_the_sphere(step, trained):
    method = build_method("swav")
    method.loss(draw_batch(method, step=step))["loss"].backward()
    assert (method.nets["prototypes"].weight.grad is not None) == trained
    with torch.no_grad():
        method.nets["prototypes"].weight.mul_(3)
    method.after_step(step)
    torch.testing.assert_close(method.nets["prototypes"].weight.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("name", ["deepcluster-v2", "sela-v2"])
def test_assignment_methods_find_each_crops_cluster_in_every_head(name):
    method = build_method(name)
    batch, nets = draw_batch(method), method.nets
    method.before_epoch(0, whole_slices(batch))
    z = projections_of(method, batch)
    expected = 0.0
    for head, clusters in zip(nets["prototypes"], nets["memory"].clusters.tolist(), strict=True):
        prototypes = head.weight.double().tolist()
        for view in z:
            for v, cluster in zip(view, clusters, strict=True):
                logits = [dot(v, c) / method.settings.temperature for c in prototypes]
                expected -= log_softmax(logits)[cluster] / NUM_SLICES / len(z) / 3
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)
    for kept, view in zip(nets["memory"].vectors.double().tolist(), z[:2], strict=True):
        for a, b in zip(kept, view, strict=True):
            assert a == pytest.approx(b, abs=1e-5)


def test_deepcluster_takes_the_centres_of_its_memory_as_prototypes():
    method = build_method("deepcluster-v2")
    batch, nets = draw_batch(method), method.nets
    method.before_epoch(0, whole_slices(batch))
    vectors, clusters = nets["memory"].vectors[0], nets["memory"].clusters[0]
    for k, prototype in enumerate(nets["prototypes"][0].weight):
        centre = torch.nn.functional.normalize(vectors[clusters == k].sum(0), dim=0)
        torch.testing.assert_close(prototype.detach(), centre, atol=1e-5, rtol=1e-4)
    assert not any(p.requires_grad for p in nets["prototypes"].parameters())


def test_sela_assigns_the_whole_data_set_in_about_equal_shares():
    method = build_method("sela-v2")
    batch, nets = draw_batch(method), method.nets
    method.before_epoch(0, whole_slices(batch))
    vectors = nets["memory"].vectors[1].double().tolist()
    prototypes = nets["prototypes"][1].weight.double().tolist()
    settings = method.settings
    q = reference.sinkhorn(
        [[dot(v, c) for c in prototypes] for v in vectors], settings.epsilon, settings.sinkhorn_rounds
    )
    expected = [max(range(len(row)), key=row.__getitem__) for row in q]
    assert nets["memory"].clusters[1].tolist() == expected


def test_clusters_come_from_the_bank_after_the_first_epoch():
    method = build_method("sela-v2")
    method.before_epoch(0, whole_slices(draw_batch(method)))
    memory = method.nets["memory"]
    before = memory.clusters.clone()
    memory.vectors.copy_(memory.vectors.flip(1))
    method.before_epoch(1, iter(()))  # asks for no slices
    assert torch.equal(memory.clusters, before.flip(1))


def test_balanced_assignments_sum_to_one_and_fill_every_cluster():
    scores = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) / 3
    q = sinkhorn(scores, 0.05, 200)
    torch.testing.assert_close(q.sum(1), torch.ones(40))
    torch.testing.assert_close(q.sum(0), torch.full((5,), 8.0), atol=1e-2, rtol=0)
    expected = reference.sinkhorn(scores.double().tolist(), 0.05, 3)
    torch.testing.assert_close(
        sinkhorn(scores, 0.05, 3).double(), torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_kmeans_finds_well_separated_directions():
    truth = torch.arange(90) % 3
    noise = 0.05 * torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
    vectors = torch.nn.functional.normalize(torch.eye(3)[truth] + noise, dim=1)
    torch.manual_seed(0)
    vectors_in_order = vectors[truth.argsort()]
    for _ in range(20):  # a start with two vectors of one direction may stay there, as k-means does
        centres, clusters = spherical_kmeans(vectors_in_order, 3)
        if len(set(clusters[[0, 30, 60]].tolist())) == 3:
            break
    assert clusters.reshape(3, 30).unique(dim=1).shape == (3, 1)
    torch.testing.assert_close(centres[clusters[[0, 30, 60]]], torch.eye(3), atol=0.05, rtol=0)


def test_kmeans_keeps_the_centre_of_a_cluster_without_members():
    torch.manual_seed(0)
    centres, clusters = spherical_kmeans(torch.tensor([[1.0, 0.0]] * 4), 2)
    assert centres.tolist() == [[1, 0], [1, 0]]
    assert clusters.tolist() == [0] * 4


def test_clusters_are_at_most_a_quarter_of_the_slices():
    assert default_num_clusters(3000, 400) == 100
    assert default_num_clusters(3000, 10**6) == 3000
