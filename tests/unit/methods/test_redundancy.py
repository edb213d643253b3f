"""Losses against collapse by variance, covariance and rank, number by number."""

from itertools import chain

import pytest
import torch

from raysweep.methods._regularisation import covariance_penalty, variance_hinge
from tests.pretraining import NUM_SLICES, build_method, draw_batch
from tests.unit.methods.reference import dot, loss_of, mean, move_apart, units

CLOSE = {"abs": 1e-5, "rel": 0}


def numbers(x: torch.Tensor) -> list:
    return x.detach().double().tolist()


def columns(rows: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def centred(values: list[float]) -> list[float]:
    return [v - mean(values) for v in values]


def test_barlow_twins_is_equation_1():
    method = build_method("barlow-twins")
    batch, nets = draw_batch(method), method.nets
    a, b = ([centred(c) for c in columns(numbers(nets["projector"](nets["encoder"](view))))] for view in batch.views)
    # batch normalisation in the paper's listing adds 1e-5 to the variance
    size = [[(dot(c, c) / NUM_SLICES + 1e-5) ** 0.5 for c in view] for view in (a, b)]
    expected = 0.0
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            correlation = dot(x, y) / NUM_SLICES / size[0][i] / size[1][j]
            expected += (1 - correlation) ** 2 if i == j else method.settings.redundancy_weight * correlation**2
    assert loss_of(method, batch) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def vicreg(a: list[list[float]], b: list[list[float]], settings) -> float:
    """Equation 6 as the paper's listing averages it: the mean of hinges over the views, the sum of covariances."""
    num, width = len(a), len(a[0])
    distance = mean([(x - y) ** 2 for row, other in zip(a, b, strict=True) for x, y in zip(row, other, strict=True)])
    hinges, covariances = 0.0, 0.0
    for view in (a, b):
        c = [centred(column) for column in columns(view)]
        hinges += mean([max(0.0, 1 - (dot(v, v) / (num - 1) + 1e-4) ** 0.5) for v in c]) / 2
        covariances += (
            sum((dot(c[i], c[j]) / (num - 1)) ** 2 for i in range(width) for j in range(width) if i != j) / width
        )
    return (
        settings.invariance_weight * distance
        + settings.variance_weight * hinges
        + settings.covariance_weight * covariances
    )


def test_vicreg_is_equation_6():
    method = build_method("vicreg")
    batch, nets = draw_batch(method), method.nets
    a, b = (numbers(nets["projector"](nets["encoder"](view))) for view in batch.views)
    assert loss_of(method, batch) == pytest.approx(vicreg(a, b, method.settings), rel=1e-6, abs=1e-5)


def test_variance_and_covariance_are_zero_for_spread_independent_dimensions():
    x = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]])
    assert float(variance_hinge(x)) == 0
    assert float(covariance_penalty(x)) == 0
    assert float(variance_hinge(torch.ones(4, 2))) == pytest.approx(0.99)
    assert float(covariance_penalty(x[:, :1].expand(-1, 2))) == pytest.approx((16 / 3) ** 2)


def test_vicregl_matches_cells_by_place_and_by_likeness():
    method = build_method("vicregl", num_matches=3, local_weight=0.4)
    method.run = method.run.__class__(**{**method.run.__dict__, "image_size": 64})
    batch, nets, settings = draw_batch(method), method.nets, method.settings
    maps = [nets["encoder"].feature_maps(view)[-1] for view in batch.views]
    assert maps[0].shape[2:] == (2, 2)
    whole = [numbers(nets["projector"](m.mean((2, 3)))) for m in maps]
    cells = [[columns([list(chain(*c)) for c in item]) for item in numbers(nets["local_projector"](m))] for m in maps]
    where = [
        [
            [place_of(numbers(p)[b], (r + 0.5) / 2, (c + 0.5) / 2) for r in range(2) for c in range(2)]
            for b in range(NUM_SLICES)
        ]
        for p in batch.places
    ]
    total = 0.0
    for points in (where, cells):
        for one, other in ((0, 1), (1, 0)):
            matched = []
            for b in range(NUM_SLICES):
                pairs = []
                for i, point in enumerate(points[one][b]):
                    apart = [sum((x - y) ** 2 for x, y in zip(point, p, strict=True)) for p in points[other][b]]
                    nearest = min(range(4), key=apart.__getitem__)
                    pairs.append((apart[nearest], cells[one][b][i], cells[other][b][nearest]))
                matched.append(sorted(pairs, key=lambda pair: pair[0])[:3])
            ranks = [vicreg([m[k][1] for m in matched], [m[k][2] for m in matched], settings) for k in range(3)]
            total += mean(ranks) / 2
    expected = 0.6 * vicreg(whole[0], whole[1], settings) + 0.4 * total
    assert loss_of(method, batch) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def place_of(place: list[list[float]], y: float, x: float) -> list[float]:
    return [row[0] * y + row[1] * x + row[2] for row in place]


def test_tico_contrasts_with_a_running_covariance_matrix():
    method = build_method("tico", output_features=5)
    nets, settings = method.nets, method.settings
    move_apart(method)
    start = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    nets["covariance"].matrix = start.clone()
    batch = draw_batch(method)
    z = [units(nets["projector"](nets["encoder"](view))) for view in batch.views]
    t = [units(nets["momentum_projector"](nets["momentum_encoder"](view))) for view in batch.views]
    matrix, beta, expected = numbers(start), settings.covariance_momentum, 0.0
    for online, target in ((z[0], t[1]), (z[1], t[0])):
        matrix = [
            [beta * matrix[i][j] + (1 - beta) * mean([v[i] * v[j] for v in online]) for j in range(5)] for i in range(5)
        ]
        for v, w in zip(online, target, strict=True):
            contrast = sum(v[i] * matrix[i][j] * v[j] for i in range(5) for j in range(5))
            expected += (1 - dot(v, w) + settings.covariance_weight * contrast) / NUM_SLICES / 2
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)
    for row, other in zip(numbers(nets["covariance"].matrix), matrix, strict=True):
        assert row == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize("local_weight", [0.0, 0.3])
def test_mmcr_is_the_nuclear_norm_of_the_centroids(local_weight):
    method = build_method("mmcr", num_views=3, local_weight=local_weight)
    batch, nets = draw_batch(method), method.nets
    flat = units(nets["projector"](nets["encoder"](torch.cat(list(batch.views)))))
    views = torch.tensor(flat, dtype=torch.float64).reshape(3, NUM_SLICES, -1)
    expected = -nuclear_norm(views.mean(0))
    expected += local_weight * mean([nuclear_norm(views[:, b]) for b in range(NUM_SLICES)])
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)


def nuclear_norm(matrix: torch.Tensor) -> float:
    """The sum of the square roots of the eigenvalues of M M^T."""
    return float(torch.linalg.eigvalsh(matrix @ matrix.T).clamp(min=0).sqrt().sum())
