"""Losses on cells of feature maps against the equations of their papers, number by number."""

import math

import pytest
import torch

from raysweep.data import augment
from raysweep.methods._places import cell_centres
from raysweep.settings import Augmentation
from tests.pretraining import NUM_SLICES, build_method, draw_batch, small_run
from tests.unit.methods.reference import cross_entropy_of_positive, dot, loss_of, mean, move_apart, unit, units

CLOSE = {"abs": 1e-5, "rel": 0}
RUN = small_run(image_size=64)


def cells_of(x: torch.Tensor) -> list[list[list[float]]]:
    """The cells of each slice's feature map, row by row: B lists of h * w vectors."""
    return x.detach().double().flatten(2).transpose(1, 2).tolist()


def test_densecl_adds_matched_cells_against_a_queue_of_their_own():
    method = build_method("densecl", run=RUN, dense_weight=0.3)
    move_apart(method)
    batch, nets, temperature = draw_batch(method), method.nets, method.settings.temperature
    online = nets["encoder"].feature_maps(batch.views[0])[-1]
    momentum = nets["momentum_encoder"].feature_maps(batch.views[1])[-1]
    negatives = {name: nets[name].keys.double().tolist() for name in ("queue", "dense_queue")}
    queries = units(nets["projector"](online.mean((2, 3))))
    keys = units(nets["momentum_projector"](momentum.mean((2, 3))))
    whole = mean(
        [cross_entropy_of_positive(q, k, negatives["queue"], temperature) for q, k in zip(queries, keys, strict=True)]
    )
    r, t = cells_of(nets["dense_projector"](online)), cells_of(nets["momentum_dense_projector"](momentum))
    f, g = cells_of(online), cells_of(momentum)
    terms = []
    for b in range(NUM_SLICES):
        for s in range(4):
            match = max(range(4), key=lambda k: dot(unit(f[b][s]), unit(g[b][k])))
            pair = unit(r[b][s]), unit(t[b][match])
            terms.append(cross_entropy_of_positive(*pair, negatives["dense_queue"], temperature))
    assert loss_of(method, batch) == pytest.approx(0.7 * whole + 0.3 * mean(terms), **CLOSE)


def test_pixpro_agrees_where_cells_lie_close_together():
    method = build_method("pixpro", run=RUN, max_distance=1.2)
    move_apart(method)
    batch, nets, gamma = draw_batch(method), method.nets, method.settings.sharpness
    maps = [nets["projector"](nets["encoder"].feature_maps(view)[-1]) for view in batch.views]
    targets = [
        cells_of(nets["momentum_projector"](nets["momentum_encoder"].feature_maps(view)[-1])) for view in batch.views
    ]
    x, transformed = [cells_of(m) for m in maps], [cells_of(nets["transform"](m)) for m in maps]
    places = [p.double().tolist() for p in batch.places]

    def propagate(view: int, b: int, i: int) -> list[float]:
        y = [0.0] * len(x[view][b][i])
        for j in range(4):
            weight = max(0.0, dot(unit(x[view][b][i]), unit(x[view][b][j]))) ** gamma
            y = [a + weight * v for a, v in zip(y, transformed[view][b][j], strict=True)]
        return unit(y)

    def centre(view: int, b: int, i: int) -> list[float]:
        y, u = (i // 2 + 0.5) / 2, (i % 2 + 0.5) / 2
        return [row[0] * y + row[1] * u + row[2] for row in places[view][b]]

    def diagonal(view: int, b: int) -> float:
        (a, c, _), (d, e, _) = places[view][b]
        return math.hypot(math.hypot(a, d) / 2, math.hypot(c, e) / 2)

    expected = 0.0
    for one, other in ((0, 1), (1, 0)):
        slices = []
        for b in range(NUM_SLICES):
            limit = 1.2 * max(diagonal(0, b), diagonal(1, b))
            near = [
                (i, j) for i in range(4) for j in range(4) if math.dist(centre(one, b, i), centre(other, b, j)) < limit
            ]
            if near:
                slices.append(mean([dot(propagate(one, b, i), unit(targets[other][b][j])) for i, j in near]))
        expected -= mean(slices)
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)


def test_places_say_where_a_views_pixels_come_from():
    """A slice whose values are its coordinates keeps telling them after crop, flips and rotation."""
    H, W, S = 90, 70, 24
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    slices = torch.stack((y, x))[None].expand(8, -1, -1, -1).contiguous()
    settings = Augmentation(
        crop_scale=(0.2, 0.6), flip_p=0.5, vertical_flip_p=0.5, rotation_deg=25, jitter_p=0, blur_p=0
    )
    p = augment.draw(settings, torch.tensor([(H, W)] * 8), torch.Generator().manual_seed(3))
    view = augment.apply(slices, p, S)
    centres = cell_centres(augment.places(p), S, S).movedim(-1, 1)
    inner = (slice(None), slice(None), slice(8, 16), slice(8, 16))  # what rotation brings in from outside is 0
    torch.testing.assert_close(view[inner], centres[inner], atol=0.3, rtol=0)
    assert p.flip_x.any()
    assert p.flip_y.any()
    assert not p.flip_x.all()
