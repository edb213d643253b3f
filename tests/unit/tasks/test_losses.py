from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch import losses as smp
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits

from raysweep.tasks._losses import LOSSES, LossSettings, pixels_of, truth_maps

NUMBERS = LossSettings(focal_gamma=2.0, tversky_weights=(0.3, 0.7))
B, K, H, W = 3, 4, 16, 12


def batch(present, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(B, K, H, W) * 3
    choice = torch.tensor(present)
    return logits, choice[torch.randint(len(present), (B, H, W))]


def loss_of(name, logits, masks, *, exclusive=True, overlapping=False, ignore_label=None):
    pixels = pixels_of(logits, masks, exclusive=exclusive, overlapping=overlapping, ignore_label=ignore_label)
    return LOSSES[name](pixels, NUMBERS)


def bits_of(maps):
    """Structures (B, K, H, W) as a pack holds them where they overlap: (B, H, W), bit k for structure k."""
    return (maps.long() << torch.arange(maps.shape[1]).view(1, -1, 1, 1)).sum(1)


SOFTMAX = {
    "dice": smp.DiceLoss("multiclass"),
    "jaccard": smp.JaccardLoss("multiclass"),
    "tversky": smp.TverskyLoss("multiclass", alpha=0.3, beta=0.7),
    "cross_entropy": F.cross_entropy,
    "dice_cross_entropy": lambda x, y: smp.DiceLoss("multiclass")(x, y) + F.cross_entropy(x, y),
    "focal": lambda x, y: softmax_focal_loss_with_logits(x, y, gamma=2.0),
}
SIGMOID = {
    "dice": smp.DiceLoss("multilabel"),
    "jaccard": smp.JaccardLoss("multilabel"),
    "tversky": smp.TverskyLoss("multilabel", alpha=0.3, beta=0.7),
    "cross_entropy": F.binary_cross_entropy_with_logits,
    "bce": F.binary_cross_entropy_with_logits,
    "dice_cross_entropy": lambda x, y: smp.DiceLoss("multilabel")(x, y) + F.binary_cross_entropy_with_logits(x, y),
    "focal": smp.FocalLoss("binary", gamma=2.0),
}


def assert_equal_with_gradients(ours, theirs, logits):
    mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = ours(mine), theirs(other)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("present", [[0, 1, 2, 3], [0, 2], [0]])
@pytest.mark.parametrize("name", SOFTMAX)
def test_losses_of_classes_and_their_gradients_are_those_of_the_libraries(name, present):
    logits, masks = batch(present)
    assert_equal_with_gradients(lambda x: loss_of(name, x, masks), lambda x: SOFTMAX[name](x, masks), logits)


@pytest.mark.parametrize("name", SIGMOID)
@pytest.mark.parametrize("density", [0.4, 0.0])
def test_losses_of_overlapping_structures_and_their_gradients_are_those_of_the_libraries(name, density):
    logits, _ = batch([0])
    maps = torch.rand(B, K, H, W) < density
    maps[:, 1] = False  # in no slice
    truth = maps.float()
    assert_equal_with_gradients(
        lambda x: loss_of(name, x, bits_of(maps), exclusive=False, overlapping=True),
        lambda x: SIGMOID[name](x, truth),
        logits,
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("exclusive", [True, False])
def test_ignored_pixels_change_neither_loss_nor_gradient(name, exclusive):
    """A batch with ignored columns equals the batch without these columns."""
    if name == "bce" and exclusive:
        pytest.skip("bce is of structures")
    logits, masks = batch([0, 1, 2, 3])
    logits = logits if exclusive else logits[:, 1:]
    ignored = masks.clone()
    ignored[..., -5:] = 255
    mine, other = logits.clone().requires_grad_(), logits[..., :-5].clone().requires_grad_()
    loss = loss_of(name, mine, ignored, exclusive=exclusive, ignore_label=255)
    expected = loss_of(name, other, masks[..., :-5], exclusive=exclusive)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad[..., :-5], other.grad)
    assert not mine.grad[..., -5:].any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_labelled_pixel_has_no_gradient(name):
    logits = torch.randn(B, K, H, W, requires_grad=True)
    nothing = torch.full((B, H, W), 255)
    loss = loss_of(name, logits, nothing, exclusive=name != "bce", ignore_label=255)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_certain_and_right_logits_lose_nothing_and_wrong_ones_stay_finite(name):
    exclusive = name != "bce"
    _, masks = batch([0, 1, 2, 3])
    truth = truth_maps(masks, K if exclusive else K - 1, exclusive=exclusive, overlapping=False)
    certain = (truth.float() * 2 - 1) * 500
    for logits, wanted in ((certain, 0.0), (-certain, None)):
        logits = logits.clone().requires_grad_()
        loss = loss_of(name, logits, masks, exclusive=exclusive)
        loss.backward()
        assert torch.isfinite(logits.grad).all()
        assert abs(loss.item() - wanted) < 1e-6 if wanted is not None else 0.5 < loss.item() < 1e4


def test_classes_without_background_and_bits_become_structures():
    masks = torch.tensor([[[0, 1, 2, 3]]])
    assert truth_maps(masks, 3, exclusive=False, overlapping=False)[0, :, 0].int().tolist() == [
        [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1],
    ]  # fmt: skip
    assert truth_maps(masks, 2, exclusive=False, overlapping=True)[0, :, 0].int().tolist() == [
        [0, 1, 0, 1],
        [0, 0, 1, 1],
    ]
