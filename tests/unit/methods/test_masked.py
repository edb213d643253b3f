"""Masked modelling against the papers' equations, and what is hidden from whom."""

import math

import pytest
import torch

from raysweep.errors import StudyError
from raysweep.methods import _masks
from raysweep.methods._sparse import sparse, spread
from raysweep.sources.encoder import build_encoder
from tests.pretraining import CONV, NUM_SLICES, VIT, build_method, draw_batch, small_run
from tests.unit.methods.reference import loss_of, mean, move_apart

CLOSE = {"abs": 1e-5, "rel": 0}
SIDE, GRID = 8, 4


def pixels_of(view: torch.Tensor, patch: int, side: int = SIDE, grid: int = GRID) -> list[float]:
    """The pixels of one patch of one slice (C, H, W): rows, columns, then channels."""
    y, x = patch // grid * side, patch % grid * side
    return [float(view[c, y + i, x + j]) for i in range(side) for j in range(side) for c in range(len(view))]


def standardised(values: list[float]) -> list[float]:
    middle = mean(values)
    variance = sum((v - middle) ** 2 for v in values) / (len(values) - 1)
    return [(v - middle) / math.sqrt(variance + 1e-6) for v in values]


def squared(a: list[float], b: list[float]) -> float:
    return mean([(x - y) ** 2 for x, y in zip(a, b, strict=True)])


@pytest.mark.parametrize(("normalised", "target"), [(True, standardised), (False, list)])
def test_mae_is_the_squared_error_of_hidden_patches(normalised, target):
    method = build_method("mae", normalised_targets=normalised)
    batch, nets = draw_batch(method), method.nets
    (view,) = batch.views
    torch.manual_seed(3)
    order = torch.rand(NUM_SLICES, GRID**2).argsort(1)
    seen, hidden = order[:, :4], order[:, 4:]
    tokens = nets["encoder"].tokens(view, kept=seen).patches
    predictions = nets["decoder"](tokens, seen, hidden, (GRID, GRID)).double().tolist()
    errors = [
        squared(predictions[b][k], target(pixels_of(view[b], patch)))
        for b in range(NUM_SLICES)
        for k, patch in enumerate(hidden[b].tolist())
    ]
    assert loss_of(method, batch) == pytest.approx(mean(errors), **CLOSE)


def test_mae_never_sees_what_it_predicts():
    method = build_method("mae")
    batch = draw_batch(method)
    torch.manual_seed(3)
    order = torch.rand(NUM_SLICES, GRID**2).argsort(1)
    changed = batch.views[0].clone()
    for b, patch in enumerate(order[:, 4].tolist()):
        y, x = patch // GRID * SIDE, patch % GRID * SIDE
        changed[b, :, y : y + SIDE, x : x + SIDE] += 5
    encode = method.nets["encoder"].tokens
    before, after = (encode(view, kept=order[:, :4]).patches for view in (batch.views[0], changed))
    assert torch.equal(before, after)


def test_simmim_is_the_absolute_error_of_hidden_pixels():
    method = build_method("simmim", mask_px=16)
    batch, nets = draw_batch(method), method.nets
    (view,) = batch.views
    torch.manual_seed(3)
    cells = torch.rand(NUM_SLICES, 4).argsort(1).argsort(1) < round(0.6 * 4)
    hidden = cells.reshape(-1, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    tokens = nets["encoder"].tokens(view, hidden=hidden, mask_token=nets["mask"]["token"]).patches
    predictions = nets["decoder"](tokens).double().tolist()
    errors = [
        mean([abs(p - q) for p, q in zip(predictions[b][k], pixels_of(view[b], k), strict=True)])
        for b in range(NUM_SLICES)
        for k in range(GRID**2)
        if hidden[b, k]
    ]
    assert len(errors) == NUM_SLICES * 8
    assert loss_of(method, batch) == pytest.approx(mean(errors), **CLOSE)


def test_hidden_patches_reach_no_token():
    encoder = build_encoder(VIT)
    x = torch.rand(2, 1, 32, 32, requires_grad=True)
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 5] = True
    encoder.tokens(x, hidden=hidden, mask_token=torch.zeros(64)).patches.sum().backward()
    assert not x.grad[:, :, 8:16, 8:16].any()
    assert x.grad[:, :, :8].any()


def test_i_jepa_predicts_normalised_tokens_of_target_blocks():
    method = build_method("i-jepa")
    move_apart(method)
    batch, nets = draw_batch(method), method.nets
    (view,) = batch.views
    torch.manual_seed(3)
    context, targets = method.draw_blocks(NUM_SLICES, GRID, GRID)
    known = nets["encoder"].tokens(view, kept=context).patches
    whole = nets["momentum_encoder"].tokens(view).patches.double().tolist()
    errors = []
    for block in targets.unbind(1):
        predictions = nets["predictor"](known, context, block, (GRID, GRID)).double().tolist()
        for b in range(NUM_SLICES):
            for k, patch in enumerate(block[b].tolist()):
                token = whole[b][patch]
                middle = mean(token)
                spread_ = math.sqrt(mean([(t - middle) ** 2 for t in token]) + 1e-5)
                for p, t in zip(predictions[b][k], token, strict=True):
                    d = abs(p - (t - middle) / spread_)
                    errors.append(d * d / 2 if d < 1 else d - 0.5)
    assert loss_of(method, batch) == pytest.approx(mean(errors), **CLOSE)


def test_context_and_targets_of_i_jepa_share_no_patch():
    method = build_method("i-jepa", run=small_run(image_size=128))
    for seed in range(20):
        torch.manual_seed(seed)
        context, targets = method.draw_blocks(6, 16, 16)
        assert targets.shape[:2] == (6, 4)
        assert 0.1 < targets.shape[2] / 256 < 0.25
        for own, taken in zip(context, targets, strict=True):
            assert not set(own.tolist()) & set(taken.flatten().tolist())
            assert len(own.unique()) == len(own) > 0
            rows = (taken // 16).amax(1) - (taken // 16).amin(1) + 1
            columns = (taken % 16).amax(1) - (taken % 16).amin(1) + 1
            assert (rows * columns == targets.shape[2]).all()  # whole rectangles


def test_spark_is_the_squared_error_of_normalised_hidden_squares():
    method = build_method("spark", run=small_run(image_size=96))
    batch, nets = draw_batch(method), method.nets
    (view,) = batch.views
    torch.manual_seed(3)
    hidden = (torch.rand(NUM_SLICES, 9).argsort(1).argsort(1) < 5).reshape(-1, 3, 3)
    with sparse(nets["encoder"], ~hidden):
        maps = nets["encoder"].feature_maps(view * spread(~hidden, 96, 96)[:, None])[-4:]
    filled = nets["densify"](maps, [spread(~hidden, *m.shape[2:]) for m in maps])
    picture = torch.nn.functional.pixel_shuffle(nets["decoder"](filled), 4).detach().double()
    errors = [
        squared(pixels_of(picture[b], k, 32, 3), standardised(pixels_of(view[b], k, 32, 3)))
        for b in range(NUM_SLICES)
        for k in range(9)
        if hidden[b].flatten()[k]
    ]
    assert loss_of(method, batch) == pytest.approx(mean(errors), abs=2e-5, rel=0)


def test_sparse_passes_keep_holes_empty_and_do_not_depend_on_what_was_there():
    torch.manual_seed(0)
    encoder = build_encoder(CONV)
    visible = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(1)) > 0.4
    x = torch.rand(3, 1, 96, 96)
    other = torch.where(spread(visible, 96, 96)[:, None], x, torch.rand(3, 1, 96, 96))
    results = []
    for slices in (x, other):
        with sparse(encoder, visible):
            results.append(encoder.feature_maps(slices * spread(visible, 96, 96)[:, None]))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
        assert not (first.detach() * ~spread(visible, *first.shape[2:])[:, None]).any()
    assert not encoder.model.conv1[0]._forward_hooks


def test_sparse_normalisation_takes_the_statistics_of_visible_cells():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(4)
    x, visible = torch.rand(2, 4, 6, 6), torch.rand(2, 3, 3) > 0.5
    where = spread(visible, 6, 6)
    with sparse(torch.nn.Sequential(norm), visible):
        got = norm(x)
    cells = x.movedim(1, -1)[where].double()
    expected = (cells - cells.mean(0)) / (cells.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(got.movedim(1, -1)[where].double(), expected, atol=1e-5, rtol=1e-4)
    assert not got.movedim(1, -1)[~where].any()


@pytest.mark.parametrize("size", [32, 80])
def test_spark_refuses_sizes_without_squares_to_hide_and_to_see(size):
    with pytest.raises(StudyError, match=rf"image_size of {size} must be a multiple of that"):
        build_method("spark", run=small_run(image_size=size))


def test_blocks_cover_exactly_their_share():
    torch.manual_seed(0)
    shares = torch.tensor([0.0, 0.1, 0.33, 0.5, 1.0])
    counts = _masks.random_blocks(shares, 7, 9).sum((1, 2))
    assert counts.tolist() == [round(share * 63) for share in shares.tolist()]


def test_patches_are_taken_row_by_row():
    x = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    patches = _masks.patchify(x, 8)
    assert patches.shape == (2, 6, 192)
    for k in range(6):
        y, c = k // 3 * 8, k % 3 * 8
        assert torch.equal(patches[1, k], x[1, :, y : y + 8, c : c + 8].permute(1, 2, 0).flatten())


def test_positions_of_the_decoder_are_sines_and_cosines_of_both_axes():
    positions = _masks.grid_positions(3, 5, 8).double()
    for y in range(3):
        for x in range(5):
            expected = [f(v / 10000 ** (k / 2)) for v in (x, y) for f in (math.sin, math.cos) for k in range(2)]
            assert positions[y * 5 + x].tolist() == pytest.approx(expected, abs=1e-6)
