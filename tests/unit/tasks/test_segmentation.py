from __future__ import annotations

import numpy as np
import pytest
import torch

from raysweep.data.pack import open_pack
from raysweep.data.slices import mask_of, scaled_slice
from raysweep.errors import PackError
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.tasks.segmentation import Segmentation, SegmentationSettings


def task_of(pack, encoder="test_resnet", **settings) -> Segmentation:
    values = SegmentationSettings(pack="p", **{"decoder_channels": (16, 8), **settings})
    torch.manual_seed(0)
    return Segmentation(values, build_encoder(Backbone(encoder=encoder)), open_pack(pack))


def test_the_encoders_weights_arrive_in_the_unet(cardiac_pack):
    encoder = build_encoder(Backbone(encoder="test_resnet"))
    for value in encoder.model.state_dict().values():
        value.copy_(torch.rand_like(value.float()) if value.is_floating_point() else value + 7)
    pack = open_pack(cardiac_pack)
    for depth in (2, 3, 5):
        settings = SegmentationSettings(pack="p", decoder_channels=(8,) * depth)
        task = Segmentation(settings, encoder, pack)
        inside = task.encoder_module().state_dict()
        assert inside
        for key, value in inside.items():
            assert torch.equal(value, encoder.model.state_dict()[key.removeprefix("model.")])


def test_an_encoder_without_a_stride_of_two_still_gives_full_resolution(cardiac_pack):
    task = task_of(cardiac_pack, "convnext_atto", decoder_channels=(8,) * 5)
    assert task.network(torch.zeros(1, 1, 64, 32)).shape == (1, 4, 64, 32)


def brute_force(pack, rows, predict, metric):
    """Slice by slice and class by class, with numpy's set operations."""
    scores, cases = [], {}
    for row in rows:
        image = scaled_slice(pack, int(row))[None]
        height, width = image.shape[-2:]
        canvas = torch.zeros(1, 1, -(-height // 32) * 32, -(-width // 32) * 32)
        canvas[:, :, :height, :width] = image
        labels = predict(canvas)[0].argmax(0).numpy()[:height, :width]
        truth = mask_of(pack, int(row)).numpy()
        of_slice = []
        for label in range(4):
            p, t = labels == label, truth == label
            cases[int(row), label] = ((p & t).sum(), (p & ~t).sum(), (~p & t).sum(), (~p & ~t).sum())
            if label and (p | t).any():
                both, either = (p & t).sum(), (p | t).sum()
                of_slice.append(both / either if metric == "iou" else 2 * both / (p.sum() + t.sum()))
        scores += [np.mean(of_slice)] if of_slice else []
    return np.mean(scores), cases


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_evaluation_at_native_resolution_equals_counting_slice_by_slice(cardiac_pack, metric):
    task = task_of(cardiac_pack, metric=metric)
    pack = task.pack
    rows = pack.select(annotated=True)
    assert len({pack.shape(int(row)) for row in rows}) > 2
    task.network.eval()

    def predict(slices):
        with torch.inference_mode():
            return task.network(slices) + slices * torch.tensor([0.0, 2, 4, 6]).view(1, 4, 1, 1)

    evaluation = task.evaluate(rows, predict, "test", num_examples=3)
    score, cases = brute_force(pack, rows, predict, metric)
    assert evaluation.score == pytest.approx(score, abs=1e-12)
    assert len(evaluation.cases) == len(cases) == 4 * len(rows)
    row_of = {
        (v, f, n): r
        for r, (v, f, n) in enumerate(zip(pack.index.volume, pack.index.frame, pack.index.slice_number, strict=True))
    }
    for case in evaluation.cases:
        row = row_of[case["volume"], case["frame"], case["slice_number"]]
        assert tuple(case[name] for name in ("tp", "fp", "fn", "tn")) == cases[row, case["class_index"]]
        assert sum(case[name] for name in ("tp", "fp", "fn", "tn")) == np.prod(pack.shape(row))
        assert (case["dice"] is None) == (case["tp"] + case["fp"] + case["fn"] == 0)
    assert set(evaluation.metrics) == {f"{metric}_{name}" for name in pack.class_names[1:]}
    assert len(evaluation.examples) == 3
    for example in evaluation.examples:
        assert example.truth.any()
        assert example.image.shape == example.truth.shape == example.prediction.shape


def test_a_perfect_prediction_scores_one(cardiac_pack):
    task = task_of(cardiac_pack)
    rows = task.pack.select(split="test", annotated=True)[:1]
    truth = torch.nn.functional.one_hot(mask_of(task.pack, int(rows[0])), 4).movedim(-1, 0)[None].float()

    def predict(slices):
        height, width = slices.shape[-2:]
        return torch.nn.functional.pad(truth, (0, width - truth.shape[-1], 0, height - truth.shape[-2]))

    assert task.evaluate(rows, predict, "test").score == 1


def test_a_pack_without_masks_or_splits_is_refused(leaves_pack, cardiac_pack, monkeypatch):
    with pytest.raises(PackError, match="has no mask classes"):
        Segmentation.check_pack(open_pack(leaves_pack), SegmentationSettings(pack="p"))
    task = task_of(cardiac_pack)
    task.check_pack(task.pack, task.settings)
    monkeypatch.setattr(
        type(task.pack),
        "select",
        lambda self, split=None, annotated=None: np.array([], int) if split == "val" else np.array([1]),
    )
    with pytest.raises(PackError, match="no annotated slice in its val split"):
        task.check_pack(task.pack, task.settings)
