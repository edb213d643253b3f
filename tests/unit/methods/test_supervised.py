"""Supervised pretraining: labels with gaps, exclusive labels, masks, and packs that lack them."""

import math

import numpy as np
import pytest
import torch

from raysweep.data.pack import open_pack
from raysweep.errors import PackError
from raysweep.methods import Batch
from raysweep.methods.supervised import Supervised, SupervisedSettings
from tests.pretraining import NUM_CLASSES, NUM_SLICES, VIT, build_method, draw_batch, optimiser_of, small_run, train
from tests.unit.methods.reference import log_softmax, loss_of, mean, softmax


def logits_of(method, batch) -> list[list[float]]:
    return method.nets["head"](method.nets["encoder"](batch.views[0])).detach().double().tolist()


def with_labels(batch: Batch, labels: torch.Tensor) -> Batch:
    return Batch(**{**batch.__dict__, "labels": labels})


def test_labels_are_learnt_by_binary_cross_entropy_and_unknown_ones_left_out():
    method = build_method("supervised")
    batch = draw_batch(method)
    labels = batch.labels.clone()
    labels[::3, 1] = math.nan
    terms = []
    for row, truth in zip(logits_of(method, batch), labels.tolist(), strict=True):
        for logit, label in zip(row, truth, strict=True):
            if not math.isnan(label):
                p = 1 / (1 + math.exp(-logit))
                terms.append(-(label * math.log(p) + (1 - label) * math.log(1 - p)))
    assert len(terms) == 4 * NUM_SLICES - 4
    assert loss_of(method, with_labels(batch, labels)) == pytest.approx(mean(terms), abs=1e-5)


def test_exclusive_labels_are_learnt_by_softmax():
    method = build_method("supervised", exclusive=True)
    batch = draw_batch(method)
    classes = torch.arange(NUM_SLICES) % 4
    labels = torch.nn.functional.one_hot(classes, 4).float()
    rows = zip(logits_of(method, batch), classes.tolist(), strict=True)
    expected = -mean([log_softmax(row)[k] for row, k in rows])
    assert loss_of(method, with_labels(batch, labels)) == pytest.approx(expected, abs=1e-5)


def test_masks_are_learnt_by_cross_entropy_and_dice():
    method = build_method("supervised", learn="masks", run=small_run(image_size=64))
    batch = draw_batch(method)
    maps = method.nets["encoder"].feature_maps(batch.views[0])[1:]
    assert maps[0].shape[2] == 16
    coarse = method.nets["head"](maps).detach().double()
    logits = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3).movedim(1, -1).flatten(0, 2).tolist()
    truth = batch.masks[0].flatten().tolist()
    entropy = -mean([log_softmax(row)[k] for row, k in zip(logits, truth, strict=True)])
    shares = [softmax(row) for row in logits]
    dice = []
    for k in range(NUM_CLASSES):
        overlap = sum(row[k] for row, t in zip(shares, truth, strict=True) if t == k)
        total = sum(row[k] for row in shares) + truth.count(k)
        if k in truth:
            dice.append(1 - 2 * overlap / total)
    assert loss_of(method, batch) == pytest.approx(entropy + mean(dice), abs=1e-5)


@pytest.mark.parametrize("backbone", [None, VIT])
def test_masks_are_learnt_whatever_the_encoder(backbone):
    method = build_method("supervised", learn="masks", backbone=backbone, run=small_run(image_size=64))
    losses = train(method, optimiser_of(method, 3e-3), draw_batch(method), range(8))
    assert losses[-1] < losses[0]


def test_packs_without_what_is_learnt_are_refused(leaves_pack, cardiac_pack):
    leaves, cardiac = open_pack(leaves_pack), open_pack(cardiac_pack)
    for learn in ("labels", "masks"):
        with pytest.raises(PackError, match=f"has no {learn}.* but method 'supervised' learns from them"):
            Supervised.check_pack(SupervisedSettings(learn=learn), leaves)
    Supervised.check_pack(SupervisedSettings(learn="masks"), cardiac)


@pytest.mark.parametrize(("learn", "lacking"), [("labels", {"labels": None}), ("masks", {"masks": ()})])
def test_a_batch_without_targets_is_an_error(learn, lacking):
    method = build_method("supervised", learn=learn)
    with pytest.raises(ValueError, match=f"learns from {learn}, but the batch has none"):
        method.loss(Batch(**{**draw_batch(method).__dict__, **lacking}))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, math.nan), ({"uncertain": "ones"}, 1.0), ({"uncertain": "zeros"}, 0.0)],
)
def test_uncertain_labels_are_left_out_unless_the_study_says_what_they_are(settings, expected):
    labels = np.array([[1.0, -1.0, np.nan]], np.float32)
    found = SupervisedSettings(**settings).learnt_labels(labels, 0)
    np.testing.assert_array_equal(found, np.array([[1.0, expected, np.nan]], np.float32))


def test_a_study_smooths_uncertain_labels_within_its_range_and_takes_unknown_ones_for_absent():
    labels = np.array([[-1.0, np.nan]] * 50, np.float32)
    settings = SupervisedSettings(uncertain="lsr-ones", unknown="zeros", smoothing=(0.4, 0.6))
    found = settings.learnt_labels(labels, 3)
    assert ((found[:, 0] >= 0.4) & (found[:, 0] <= 0.6)).all()
    assert len(set(found[:, 0].tolist())) == 50
    assert (found[:, 1] == 0).all()
    np.testing.assert_array_equal(found, settings.learnt_labels(labels, 3))
