"""What is scored of predicted masks, against libraries and plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from torchmetrics.functional.segmentation import dice_score, mean_iou

from raysweep.data.pack import Pack, open_pack
from raysweep.data.pack_format import Bucket
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels, write_pack
from raysweep.errors import PackError
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.tasks._losses import truth_maps
from raysweep.tasks.segmentation import Segmentation, SegmentationSettings

SIZE = (40, 56)
SPACING = (0.8, 1.7)


def random_masks(rng: np.random.Generator, num_classes: int, number: int) -> list[np.ndarray]:
    """Blobs, and awkward masks: empty, one pixel, one class everywhere, at the border."""
    masks = []
    for position in range(number):
        mask = np.zeros(SIZE, np.uint8)
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        if position == 1:
            mask[5, 7] = 1
        elif position == 2:
            mask[:] = num_classes - 1
        elif position == 3:
            mask[0], mask[:, -1] = 1, num_classes - 1
        elif position > 3:
            for label in range(1, num_classes):
                centre = rng.integers(0, SIZE[0]), rng.integers(0, SIZE[1])
                mask[np.hypot(y - centre[0], x - centre[1]) < rng.integers(3, 12)] = label
        masks.append(mask)
    return masks


def write_masks(path: Path, masks: list[np.ndarray], *, spacing=SPACING, per_volume: int = 1, **header) -> Pack:
    """The same masks in every split, over noise."""
    rng = np.random.default_rng(0)
    headers, pixels = [], []
    for split in ("train", "val", "test"):
        for number, mask in enumerate(masks):
            volume = f"{split}{number // per_volume}"
            headers.append(
                SliceHeader(
                    Bucket(1, *SIZE, "uint8"), volume, volume, split, has_mask=True, annotated=True, spacing_mm=spacing,
                    slice_number=number % per_volume,
                )
            )  # fmt: skip
            pixels.append(SlicePixels(rng.integers(0, 256, SIZE).astype(np.uint8), mask, 0.0, 255.0))
    names = ("background", "a", "b", "c")
    write_pack(path, PackHeader("masks", 1, {}, **header), headers, pixels, lambda labels: names)
    return open_pack(path)


def task_of(pack: Pack, **settings) -> Segmentation:
    values = SegmentationSettings(pack="p", **{"decoder_channels": (16, 8), **settings})
    Segmentation.check_pack(pack, values)
    torch.manual_seed(0)
    return Segmentation(values, build_encoder(Backbone(encoder="test_resnet")), pack)


class Scripted:
    """A network whose predictions for the test slices are written down: logits (N, K, H, W), padded as the input is.

    Padding has equal logits, of which the first wins: background.
    """

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits, self.position, self.shapes = logits, 0, []

    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(slices.shape))
        chosen = self.logits[self.position : self.position + len(slices)]
        self.position += len(slices)
        height, width = slices.shape[-2:]
        return F.pad(chosen, (0, width - chosen.shape[-1], 0, height - chosen.shape[-2]), value=-20.0)


def scripted(rng: np.random.Generator, number: int = 8) -> tuple[list[np.ndarray], torch.Tensor, torch.Tensor]:
    """True masks, predicted labels (N, H, W), and logits (N, 4, H, W) that say so."""
    truth = random_masks(rng, 4, number)
    predicted = torch.from_numpy(np.stack([*random_masks(rng, 4, number)[::-1]])).long()
    return truth, predicted, 10.0 * F.one_hot(predicted, 4).movedim(-1, 1)


def evaluate(task: Segmentation, logits: torch.Tensor, **options):
    return task.evaluate(task.pack.select(split="test", annotated=True), Scripted(logits), "test", **options)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_counts_and_overlaps_equal_torchmetrics(tmp_path, rng, metric, background):
    truth, predicted, logits = scripted(rng)
    task = task_of(write_masks(tmp_path / "p.h5", truth), metric=metric, evaluation={"score_background": background})
    evaluation = evaluate(task, logits)
    arguments = {"num_classes": 4, "include_background": True, "input_format": "index"}
    target = torch.from_numpy(np.stack(truth)).long()
    reference = {
        "dice": dice_score(predicted, target, average="none", **arguments),
        "iou": mean_iou(predicted, target, per_class=True, **arguments),
    }[metric]
    found = [np.nan if case[metric] is None else case[metric] for case in evaluation.cases]
    values = torch.tensor(found, dtype=torch.float64).view(-1, 4)
    there = ~values.isnan()
    torch.testing.assert_close(values[there].float(), reference[there].float(), atol=1e-6, rtol=0)
    first = 0 if background else 1
    means = [row[~row.isnan()].mean() for row in values[:, first:] if (~row.isnan()).any()]
    assert evaluation.score == pytest.approx(float(torch.stack(means).mean()), abs=1e-9)


def test_absent_classes_score_what_the_settings_say(tmp_path, rng):
    truth, _, logits = scripted(rng)
    pack = write_masks(tmp_path / "p.h5", truth)
    scores = {}
    for policy in ("skip", "one", "zero"):
        evaluation = evaluate(task_of(pack, metric="iou", evaluation={"absent": policy}), logits)
        cases = [case for case in evaluation.cases if case["class_index"] > 0]
        absent = [case for case in cases if case["tp"] + case["fp"] + case["fn"] == 0]
        assert absent
        assert {case["score"] for case in absent} == {{"skip": None, "one": 1.0, "zero": 0.0}[policy]}
        assert all(case["iou"] is None for case in absent)
        by_slice = [cases[first : first + 3] for first in range(0, len(cases), 3)]
        means = [[c["score"] for c in one if c["score"] is not None] for one in by_slice]
        assert evaluation.score == pytest.approx(np.mean([np.mean(one) for one in means if one]))
        scores[policy] = evaluation.score
        assert evaluation.metrics == evaluate(task_of(pack, metric="iou"), logits).metrics  # without absent classes
    assert scores["zero"] < scores["skip"] < scores["one"]


def test_the_published_evaluation_of_kalapos_2022_pads_and_scores_all_classes(tmp_path, rng):
    """Macro IoU over the padded slice, over four classes, an absent one scoring 1, by a plain loop."""
    truth, predicted, logits = scripted(rng)
    exact = {"pad_to_px": 64, "score_padding": True, "score_background": True, "absent": "one"}
    task = task_of(write_masks(tmp_path / "p.h5", truth), metric="iou", evaluation=exact)
    network = Scripted(logits)
    evaluation = task.evaluate(task.pack.select(split="test", annotated=True), network, "test")
    assert set(network.shapes) == {(8, 1, 64, 64)}
    scores = []
    for mask, labels in zip(truth, predicted.numpy(), strict=True):
        canvas = np.zeros((2, 64, 64), int)
        canvas[:, : SIZE[0], : SIZE[1]] = mask, labels
        ious = []
        for label in range(4):
            both, either = ((canvas == label).all(0)).sum(), ((canvas == label).any(0)).sum()
            ious.append(both / either if either else 1.0)
        scores.append(np.mean(ious))
    assert evaluation.score == pytest.approx(np.mean(scores), abs=1e-12)
    assert {sum(case[n] for n in ("tp", "fp", "fn", "tn")) for case in evaluation.cases} == {64 * 64}


@pytest.mark.parametrize("missed", ["diagonal", "null"])
def test_outlines_of_every_case_and_class_equal_monai(tmp_path, rng, missed):
    truth, predicted, logits = scripted(rng)
    pack = write_masks(tmp_path / "p.h5", truth)
    settings = {"nsd_mm": [1.0, 3.5], "missed_hd95": missed}
    evaluation = evaluate(task_of(pack, metric="nsd", evaluation=settings), logits)
    one_hot = [F.one_hot(m, 4).movedim(-1, 1).float() for m in (predicted, torch.from_numpy(np.stack(truth)).long())]
    seen = set()
    for position, case in enumerate(evaluation.cases):
        row, label = divmod(position, 4)
        pair = [maps[row : row + 1, label : label + 1] for maps in one_hot]
        sizes = tuple(bool(mask.any()) for mask in pair)
        if label == 0:
            assert case["hd95_mm"] is None
        elif sizes == (True, True):
            spacing = tuple(float(np.float32(s)) for s in SPACING)
            arguments = {"include_background": True, "spacing": spacing}
            expected = compute_hausdorff_distance(*pair, percentile=95, **arguments)
            assert case["hd95_mm"] == pytest.approx(float(expected), abs=1e-4)
            near = [float(compute_surface_dice(*pair, [t], **arguments)) for t in (1.0, 3.5)]
            assert case["nsd"] == pytest.approx(near, abs=1e-6)
            assert case["score"] == case["nsd"][0]
        elif sizes == (False, False):
            assert (case["hd95_mm"], case["nsd"], case["score"]) == (None, None, None)
        else:
            diagonal = np.hypot(SIZE[0] * SPACING[0], SIZE[1] * SPACING[1])
            assert case["hd95_mm"] == (pytest.approx(diagonal, rel=1e-6) if missed == "diagonal" else None)
            assert case["nsd"] == [0, 0]
        seen.add(sizes)
    assert len(seen) == 4 or {(True, True), (False, False)} <= seen
    assert {"hd95_mm_a", "nsd_1mm_b", "nsd_3.5mm_c"} <= set(evaluation.metrics)


def test_outlines_are_measured_only_where_they_are_asked_for(tmp_path, rng, monkeypatch):
    from raysweep.tasks import _scoring

    def refuse(*_):
        raise AssertionError("measured")

    monkeypatch.setattr(_scoring, "outline_distances", refuse)
    truth, _, logits = scripted(rng)
    pack = write_masks(tmp_path / "p.h5", truth)
    assert all(case["hd95_mm"] is None for case in evaluate(task_of(pack), logits).cases)
    task = task_of(pack, evaluation={"nsd_mm": [1.0]})
    rows = pack.select(split="val", annotated=True)
    task.evaluate(rows, Scripted(logits), "val")  # dice decides: no outline needed
    with pytest.raises(AssertionError, match="measured"):
        evaluate(task, logits)


def test_unknown_spacing_is_refused_where_millimetres_are_asked_for(tmp_path, rng):
    truth, _, logits = scripted(rng)
    pack = write_masks(tmp_path / "p.h5", truth, spacing=(np.nan, np.nan))
    with pytest.raises(PackError, match="does not know the pixel spacing of 8 slices of its val split"):
        task_of(pack, evaluation={"nsd_mm": [1.0]})
    assert evaluate(task_of(pack), logits).score > 0


def test_ignored_pixels_have_no_part_in_any_count(tmp_path, rng):
    truth, predicted, logits = scripted(rng)
    ignored = [np.where(np.arange(SIZE[1]) > 40, 255, mask).astype(np.uint8) for mask in truth]
    cropped = [mask[:, :41] for mask in truth]
    task = task_of(write_masks(tmp_path / "p.h5", ignored, ignore_label=255))
    evaluation = evaluate(task, logits, num_examples=2)
    for position, case in enumerate(evaluation.cases):
        row, label = divmod(position, 4)
        ours, theirs = predicted[row, :, :41].numpy() == label, cropped[row] == label
        expected = (ours & theirs).sum(), (ours & ~theirs).sum(), (~ours & theirs).sum(), (~ours & ~theirs).sum()
        assert tuple(case[name] for name in ("tp", "fp", "fn", "tn")) == expected
    assert all(example.truth.max() < 4 for example in evaluation.examples)


def overlapping(rng: np.random.Generator) -> list[np.ndarray]:
    """Bits of three structures that overlap."""
    parts = [random_masks(rng, 2, 6) for _ in range(3)]
    return [sum((part[i] << bit for bit, part in enumerate(parts)), np.zeros(SIZE, np.uint8)) for i in range(6)]


def test_overlapping_structures_are_trained_and_scored_each_for_itself(tmp_path, rng):
    masks = overlapping(rng)
    assert any((mask == 7).any() or (mask == 3).any() for mask in masks)
    pack = write_masks(tmp_path / "p.h5", masks, mask_encoding="bits")
    task = task_of(pack)
    assert task.output_names == ("a", "b", "c")
    assert task.network.eval()(torch.zeros(1, 1, 64, 64)).shape[1] == 3
    truth = truth_maps(torch.from_numpy(np.stack(masks)).long(), 3, exclusive=False, overlapping=True)
    predicted = torch.from_numpy(rng.random((6, 3, *SIZE)) < 0.3) ^ truth
    evaluation = evaluate(task, predicted.float() * 8 - 4, num_examples=2)
    assert len(evaluation.cases) == 18
    for position, case in enumerate(evaluation.cases):
        row, structure = divmod(position, 3)
        ours, theirs = predicted[row, structure], truth[row, structure]
        assert case["class_index"] == structure + 1
        assert case["tp"] == int((ours & theirs).sum())
        assert case["fp"] == int((ours & ~theirs).sum())
        assert case["fn"] == int((~ours & theirs).sum())
    perfect = evaluate(task, truth.float() * 8 - 4)
    assert perfect.score == 1
    images, target = torch.randn(2, 1, 32, 32), torch.from_numpy(np.stack(masks[4:])).long()[:, :32, :32]
    assert torch.isfinite(task.loss(task.network.train()(images), target))


def test_overlapping_structures_cannot_be_one_class_a_pixel(tmp_path, rng):
    pack = write_masks(tmp_path / "p.h5", overlapping(rng), mask_encoding="bits")
    with pytest.raises(PackError, match=r"output is softmax, one class a pixel: set it to sigmoid"):
        task_of(pack, output="softmax")
    with pytest.raises(PackError, match="no background to score"):
        task_of(pack, evaluation={"score_background": True})


def test_a_single_structure_by_sigmoid_is_cut_at_the_threshold(tmp_path, rng):
    """Dice of an image at a half, as Hosseinzadeh Taher et al. 2021 score their segmentations."""
    masks = [(mask > 0).astype(np.uint8) for mask in random_masks(rng, 2, 6)]
    pack = write_masks(tmp_path / "p.h5", masks)
    probability = torch.from_numpy(rng.random((6, 3, *SIZE)))
    logits = torch.logit(probability)
    for threshold in (0.5, 0.8):
        task = task_of(pack, output="sigmoid", loss="dice", evaluation={"threshold": threshold})
        for case in evaluate(task, logits).cases:
            if case["class_index"] == 1:
                row = int(case["volume"].removeprefix("test"))
                ours, theirs = (probability[row, 0] > threshold).numpy(), masks[row] == 1
                total = ours.sum() + theirs.sum()
                assert case["dice"] == pytest.approx(2 * (ours & theirs).sum() / total)


def test_volumes_are_scored_from_the_counts_of_their_slices(tmp_path, rng):
    truth, predicted, logits = scripted(rng)
    pack = write_masks(tmp_path / "p.h5", truth, per_volume=4)
    task = task_of(pack, evaluation={"average": "volume"})
    evaluation = evaluate(task, logits)
    volumes = [case for case in evaluation.cases if case["unit"] == "volume"]
    slices = [case for case in evaluation.cases if case["unit"] == "slice"]
    assert (len(volumes), len(slices)) == (8, 32)
    assert all(case["score"] is None for case in slices)
    scores = {}
    for case in volumes:
        number = int(case["volume"].removeprefix("test"))
        ours = predicted[4 * number : 4 * number + 4].numpy() == case["class_index"]
        theirs = np.stack(truth[4 * number : 4 * number + 4]) == case["class_index"]
        expected = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
        assert case["dice"] == pytest.approx(expected)
        relative = (int(ours.sum()) - int(theirs.sum())) / int(theirs.sum()) if theirs.any() else None
        assert case["size_error"] == (None if relative is None else pytest.approx(relative))
        assert case["slice_number"] is None
        if case["class_index"]:
            assert case["score"] == case["dice"]
            scores.setdefault(number, []).append(case["score"])
    assert evaluation.score == pytest.approx(np.mean([np.mean(values) for values in scores.values()]))


def test_large_slices_are_predicted_window_by_window(tmp_path, rng):
    truth, _, _ = scripted(rng, 4)
    pack = write_masks(tmp_path / "p.h5", truth)
    task = task_of(pack, evaluation={"window_px": 32, "overlap": 0.5})
    shapes = []

    def predict(slices):
        shapes.append(tuple(slices.shape[-2:]))
        return torch.cat([slices * 0, slices, slices * 2, slices * 0 - 1], 1)

    evaluation = task.evaluate(pack.select(split="test", annotated=True), predict, "test")
    assert set(shapes) == {(32, 32)}
    whole = task_of(pack).evaluate(pack.select(split="test", annotated=True), predict, "test")
    assert evaluation.score == pytest.approx(whole.score)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "bce", "output": "softmax"}, "use cross_entropy"),
        ({"metric": "nsd"}, "needs a tolerance in evaluation.nsd_mm"),
        ({"output": "sigmoid", "evaluation": {"score_background": True}}, "a sigmoid has no background"),
        ({"evaluation": {"window_px": 100}}, "must be a multiple of 32"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SegmentationSettings(pack="p", **settings)
