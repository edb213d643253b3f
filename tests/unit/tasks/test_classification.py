from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchvision.transforms import v2

from raysweep.data.pack import Pack, open_pack
from raysweep.data.pack_format import Bucket
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels, write_pack
from raysweep.errors import PackError
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.tasks._classifier import test_views as views_of
from raysweep.tasks.classification import Classification, ClassificationSettings

SPLITS = ("train", "val", "test")


def write_labels(
    path: Path, labels: dict[str, list[list[float]]], kind: str = "multi-label", per_subject: int = 1
) -> Pack:
    """A pack of 40 x 48 noise with these labels by split; consecutive slices share a subject."""
    rng = np.random.default_rng(0)
    names = tuple("abcdefgh"[: len(labels["train"][0])])
    headers, pixels = [], []
    for split in SPLITS:
        for number, vector in enumerate(labels[split]):
            subject = f"{split}{number // per_subject}"
            headers.append(
                SliceHeader(
                    Bucket(1, 40, 48, "uint8"), subject, subject, split, has_mask=False, annotated=True,
                    slice_number=number % per_subject, labels=tuple(vector),
                )
            )  # fmt: skip
            pixels.append(SlicePixels(rng.integers(0, 256, (40, 48)).astype(np.uint8), None, 0.0, 255.0))
    write_pack(path, PackHeader("noise", 1, {}, names, label_kind=kind), headers, pixels, lambda found: ())
    return open_pack(path)


def task_of(pack: Pack, **settings) -> Classification:
    values = ClassificationSettings(pack="p", **{"training": {"image_size": 32}, **settings})
    Classification.check_pack(pack, values)
    torch.manual_seed(0)
    return Classification(values, build_encoder(Backbone(encoder="test_resnet")), pack)


def evaluate(task: Classification, split: str = "test"):
    task.network.eval()
    rows = task.pack.select(split=split, annotated=True)
    with torch.inference_mode():
        return task.evaluate(rows, task.network, split)


nan = float("nan")
MIXED = {split: [[1, 0, -1], [0, 1, nan], [nan, 0, 1], [0, -1, 0], [1, 1, 1], [0, 0, 0]] for split in SPLITS}
ONE_HOT = {split: [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]] for split in SPLITS}


def test_unknown_and_uncertain_labels_have_no_part_in_the_loss(tmp_path):
    task = task_of(write_labels(tmp_path / "p.h5", MIXED))
    logits = torch.randn(6, 3, requires_grad=True)
    loss = task.loss(logits, task.targets[:6])
    known = [(i, j) for i, row in enumerate(MIXED["train"]) for j, value in enumerate(row) if value in (0, 1)]
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = torch.stack([bce(logits[i, j], torch.tensor(float(MIXED["train"][i][j]))) for i, j in known]).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    left_out = [(i, j) for i in range(6) for j in range(3) if (i, j) not in known]
    assert len(left_out) == 4
    assert all(logits.grad[place] == 0 for place in left_out)


@pytest.mark.parametrize(
    ("uncertain", "low", "high"), [("ones", 1, 1), ("zeros", 0, 0), ("lsr-ones", 0.55, 0.85), ("lsr-zeros", 0, 0.3)]
)
def test_policies_decide_what_uncertain_labels_teach_but_not_what_is_scored(tmp_path, uncertain, low, high):
    pack = write_labels(tmp_path / "p.h5", MIXED)
    task = task_of(pack, uncertain=uncertain, unknown="zeros")
    assert low <= task.targets[0, 2] <= high
    assert task.targets[1, 2] == 0
    targets = [[case["target"] for case in evaluate(task).cases][i : i + 3] for i in range(0, 18, 3)]
    assert targets == [[1, 0, None], [0, 1, 0], [0, 0, 1], [0, None, 0], [1, 1, 1], [0, 0, 0]]


def test_loss_of_exclusive_labels_is_the_cross_entropy_of_known_slices(tmp_path):
    pack = write_labels(tmp_path / "p.h5", {**ONE_HOT, "train": [*ONE_HOT["train"], [nan, nan, nan]]}, "multi-class")
    with pytest.raises(PackError, match="1 annotated slices without any label in its train split"):
        task_of(pack)
    settings = ClassificationSettings(pack="p", training={"image_size": 32})
    task = Classification(settings, build_encoder(Backbone(encoder="test_resnet")), pack)
    logits = torch.randn(7, 3)
    expected = torch.nn.functional.cross_entropy(logits[:6], task.targets[:6].argmax(1))
    torch.testing.assert_close(task.loss(logits, task.targets[:7]), expected)


@pytest.mark.parametrize(("kind", "labels"), [("multi-label", MIXED), ("multi-class", ONE_HOT)])
def test_cases_hold_what_the_score_is_computed_from(tmp_path, kind, labels):
    evaluation = evaluate(task_of(write_labels(tmp_path / "p.h5", labels, kind)))
    assert len(evaluation.cases) == 18
    by_label = {}
    for case in evaluation.cases:
        by_label.setdefault(case["class_name"], []).append(case)
    areas = []
    for cases in by_label.values():
        known = [case for case in cases if case["target"] is not None]
        areas.append(roc_auc_score([c["target"] for c in known], [c["probability"] for c in known]))
    assert evaluation.score == pytest.approx(np.mean(areas))
    assert [evaluation.metrics[f"auc_{name}"] for name in by_label] == pytest.approx(areas)
    if kind == "multi-class":
        sums = np.sum([[case["probability"] for case in cases] for cases in by_label.values()], 0)
        np.testing.assert_allclose(sums, 1)


def test_trained_on_all_labels_and_scored_on_some(tmp_path):
    task = task_of(write_labels(tmp_path / "p.h5", MIXED), score_labels=("a", "b"))
    evaluation = evaluate(task)
    assert evaluation.score == pytest.approx((evaluation.metrics["auc_a"] + evaluation.metrics["auc_b"]) / 2)
    assert "auc_c" not in evaluation.metrics
    assert {case["class_name"] for case in evaluation.cases if case["scored"]} == {"a", "b"}
    assert task.output_names == ("a", "b", "c")


def test_labels_that_cannot_be_ranked_are_named_and_not_averaged(tmp_path):
    never = {**MIXED, "test": [[row[0], 0, row[2]] for row in MIXED["test"]]}
    evaluation = evaluate(task_of(write_labels(tmp_path / "p.h5", never)))
    assert evaluation.score == pytest.approx((evaluation.metrics["auc_a"] + evaluation.metrics["auc_c"]) / 2)
    (note,) = evaluation.notes
    assert (
        note == "test: auc and auprc are means over 2 of 3 labels; the others have no curve: b (0 with, 6 without it)"
    )


def test_a_split_in_which_nothing_can_be_ranked_is_refused(tmp_path):
    constant = {**MIXED, "val": [[1, 0, nan]] * 3}
    with pytest.raises(PackError, match="in its val split no slice has, or none lacks, any of the labels a, b, c"):
        task_of(write_labels(tmp_path / "p.h5", constant))


def test_probabilities_of_a_subject_are_the_mean_of_its_slices(tmp_path):
    labels = {split: [[1, 0], [0, 0], [0, 1], [0, 1], [nan, 0], [0, 0]] for split in SPLITS}
    pack = write_labels(tmp_path / "p.h5", labels, per_subject=2)
    of_slices = evaluate(task_of(pack)).cases
    of_subjects = evaluate(task_of(pack, evaluation={"unit": "subject"})).cases
    assert [(c["subject"], c["class_name"], c["target"]) for c in of_subjects] == [
        ("test0", "a", 1), ("test0", "b", 0), ("test1", "a", 0), ("test1", "b", 1), ("test2", "a", 0),
        ("test2", "b", 0),
    ]  # fmt: skip
    for case in of_subjects:
        mine = [
            c["probability"]
            for c in of_slices
            if (c["subject"], c["class_index"]) == (case["subject"], case["class_index"])
        ]
        assert len(mine) == 2
        assert case["probability"] == pytest.approx(np.mean(mine))
        assert (case["unit"], "slice_number" in case) == ("subject", False)


def test_accuracy_is_the_mean_of_the_cases_scores(tmp_path):
    for kind, labels in (("multi-label", MIXED), ("multi-class", ONE_HOT)):
        evaluation = evaluate(task_of(write_labels(tmp_path / f"{kind}.h5", labels, kind), metric="accuracy"))
        scores = [case["score"] for case in evaluation.cases if case["score"] is not None]
        assert evaluation.score == pytest.approx(np.mean(scores))
        assert len(scores) == (6 if kind == "multi-class" else 14)
    assert all(case["score"] is None for case in evaluate(task_of(open_pack(tmp_path / "multi-label.h5"))).cases)


@pytest.mark.parametrize("shape", [(41, 57), (64, 33), (48, 48)])
def test_views_equal_those_of_torchvision(shape):
    slices = torch.rand(2, 1, *shape)
    resized = v2.Resize(40, antialias=True)(slices)
    (centre,) = views_of(slices, "centre", 40, 32)
    torch.testing.assert_close(centre, v2.CenterCrop(32)(resized))
    ten = views_of(slices, "ten", 40, 32)
    expected = v2.TenCrop(32)(resized)
    assert len(ten) == 10
    for one, other in zip(ten, expected, strict=True):
        torch.testing.assert_close(one, other)
    (whole,) = views_of(slices, "whole", 40, 32)
    torch.testing.assert_close(whole, v2.Resize((32, 32), antialias=True)(slices))


def test_ten_crops_average_probabilities(tmp_path):
    pack = write_labels(tmp_path / "p.h5", MIXED)
    task = task_of(pack, evaluation={"crops": "ten", "resize_px": 36})
    seen = []

    def predict(slices):
        seen.append(slices)
        return torch.full((len(slices), 3), float(len(seen)))

    rows = pack.select(split="test", annotated=True)
    evaluation = task.evaluate(rows, predict, "test")
    assert [tuple(view.shape) for view in seen] == [(6, 1, 32, 32)] * 10
    expected = torch.arange(1.0, 11).sigmoid().mean()
    assert evaluation.cases[0]["probability"] == pytest.approx(float(expected), abs=1e-6)


def test_packs_that_do_not_fit_are_refused_with_the_reason(tmp_path, leaves_pack):
    pack = write_labels(tmp_path / "p.h5", MIXED)
    with pytest.raises(PackError, match="has no labels of whole slices"):
        task_of(open_pack(leaves_pack))
    with pytest.raises(PackError, match=r"has no label 'A' \(score_labels\)\. .*Its labels: a, b, c"):
        task_of(pack, score_labels=("A",))
    with pytest.raises(PackError, match="labels that do not exclude each other"):
        task_of(pack, output="softmax")
    with pytest.raises(ValueError, match=r"resize_px is 32; it must be at least training.image_size, 224"):
        ClassificationSettings(pack="p", evaluation={"resize_px": 32})
