"""Validation on crops, as published studies did it: one overlap over the pixels of all crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from raysweep.planning import build_plan
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.runtime import prepare_runtime
from raysweep.sweep import _facts
from raysweep.tasks.segmentation import SegmentationSettings

WHOLE = {"crop_scale": [1.0, 1.0], "flip_p": 0.0, "jitter_p": 0.0, "blur_p": 0.0}


@pytest.fixture
def loop(tiny_study, tiny_store):
    """A network about to be trained on slices read as squares of 64 pixels, whose whole-slice crops are the slices."""
    changes = {
        "grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": [], "tasks.heart.metric": "iou",
        "tasks.heart.validation_crops": WHOLE, "tasks.heart.training.image_size": 64,
        "tasks.heart.training.reading": {"resize_px": 64},
    }  # fmt: skip
    study = tiny_study(changes)
    (stage,) = build_plan(study, _facts(study, tiny_store)).stages.values()
    made = FinetuneLoop(stage, tiny_store, prepare_runtime(0, "float32", 1), 1)
    made.network.eval()
    return made


def test_score_is_one_iou_over_all_pixels_without_background(loop):
    rows = loop.pack.select(split="val", annotated=True)
    found = loop.task.validate(rows, loop._predict, loop.generator, with_loss=True)
    predicted, truth, losses = [], [], []
    for _, logits, masks in loop.task._whole_logits(rows, loop._predict):
        predicted.append(logits.argmax(1))
        truth.append(masks)
        losses += [float(loop.task.loss(logits[k : k + 4], masks[k : k + 4])) for k in range(0, len(masks), 4)]
    expected = multiclass_jaccard_index(torch.cat(predicted), torch.cat(truth), num_classes=4, average="none")[1:]
    assert found.score == pytest.approx(float(expected.mean()), abs=1e-6)
    assert found.loss == pytest.approx(np.mean(losses), abs=1e-5)
    whole = loop.task.evaluate(rows, loop._predict, "val").score
    assert found.score != pytest.approx(whole, abs=1e-4), "the corrected score takes every slice by itself"


def test_crops_are_drawn_from_the_stages_generator(loop):
    rows = loop.pack.select(split="val", annotated=True)
    loop.task.settings = loop.task.settings.model_copy(
        update={"validation_crops": SegmentationSettings.model_validate(
            {"pack": "p", "validation_crops": {**WHOLE, "crop_scale": [0.1, 0.5]}}
        ).validation_crops}
    )  # fmt: skip

    def losses(seed):
        generator = torch.Generator().manual_seed(seed)
        return [loop.task.validate(rows, loop._predict, generator, with_loss=True).loss for _ in range(2)]

    assert losses(0) == losses(0)
    assert len({*losses(0), *losses(1)}) == 4


def test_surface_scores_have_no_value_on_crops():
    settings = {"pack": "p", "metric": "nsd", "evaluation": {"nsd_mm": [2.0]}, "validation_crops": {}}
    with pytest.raises(ValueError, match="validation_crops needs dice or iou"):
        SegmentationSettings.model_validate(settings)
