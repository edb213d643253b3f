import numpy as np
import pytest
import torch

from raysweep.metrics.overlap import FN, FP, TN, TP, dice, iou
from raysweep.tasks._counts import confusion_counts

NUM_CLASSES = 4


def brute_force(prediction, truth, num_classes, valid=None):
    prediction, truth = prediction.numpy(), truth.numpy()
    valid = np.ones_like(truth, bool) if valid is None else valid.numpy()
    counts = np.zeros((len(truth), num_classes, 4), np.int64)
    for case in range(len(truth)):
        for k in range(num_classes):
            p, t, v = prediction[case] == k, truth[case] == k, valid[case]
            counts[case, k] = (p & t & v).sum(), (p & ~t & v).sum(), (~p & t & v).sum(), (~p & ~t & v).sum()
    return torch.from_numpy(counts)


def mask_of(kind: str, seed: int) -> torch.Tensor:
    mask = torch.zeros(9, 7, dtype=torch.int64)
    if kind == "random":
        mask = torch.randint(0, NUM_CLASSES, (9, 7), generator=torch.Generator().manual_seed(seed))
    elif kind == "full":
        mask[:] = 2
    elif kind == "one pixel":
        mask[4, 3] = 1
    elif kind == "corner":
        mask[8, 6] = 3
    elif kind == "border":
        mask[0], mask[-1], mask[:, 0], mask[:, -1] = 3, 3, 1, 1
    return mask


KINDS = ["empty", "random", "full", "one pixel", "corner", "border"]


def every_pair() -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [(mask_of(a, 1), mask_of(b, 2)) for a in KINDS for b in KINDS]
    return torch.stack([p for p, _ in pairs]), torch.stack([t for _, t in pairs])


def test_counts_equal_brute_force_over_adversarial_pairs():
    prediction, truth = every_pair()
    counts = confusion_counts(prediction, truth, NUM_CLASSES)
    assert counts.dtype == torch.int64
    assert torch.equal(counts, brute_force(prediction, truth, NUM_CLASSES))


def test_invalid_pixels_are_left_out_whatever_their_label():
    prediction, truth = every_pair()
    valid = torch.zeros_like(truth, dtype=torch.bool)
    valid[:, :6, :5] = True
    expected = confusion_counts(prediction[:, :6, :5], truth[:, :6, :5], NUM_CLASSES)
    truth = torch.where(valid, truth, 255)
    assert torch.equal(confusion_counts(prediction, truth, NUM_CLASSES, valid), expected)
    assert torch.equal(brute_force(prediction, truth, NUM_CLASSES, valid), expected)


def test_case_without_a_valid_pixel_counts_nothing():
    mask = torch.zeros(2, 3, 3, dtype=torch.int64)
    valid = torch.tensor([True, False]).view(2, 1, 1).expand(2, 3, 3)
    counts = confusion_counts(mask, mask, 2, valid)
    assert counts.tolist() == [[[9, 0, 0, 0], [0, 0, 0, 9]], [[0, 0, 0, 0], [0, 0, 0, 0]]]


def test_positions_of_the_counts_are_named():
    prediction, truth = torch.tensor([[[1, 1, 0, 0, 0]]]), torch.tensor([[[1, 0, 1, 0, 0]]])
    counts = confusion_counts(prediction, truth, 2)[0, 1]
    assert (counts[TP], counts[FP], counts[FN], counts[TN]) == (1, 1, 1, 2)


def test_scores_of_a_known_case():
    counts = np.array([6, 1, 3, 90])
    assert float(dice(counts)) == 12 / 16
    assert float(iou(counts)) == 6 / 10
    assert dice(counts).dtype == iou(counts).dtype == np.float64


def test_scores_of_a_class_in_neither_mask_are_nan_and_of_a_missed_one_zero():
    counts = np.array([[0, 0, 0, 9], [0, 4, 0, 5], [0, 0, 4, 5]])
    for score in (dice, iou):
        assert np.isnan(score(counts)).tolist() == [True, False, False]
        assert score(counts)[1:].tolist() == [0, 0]


def test_scores_equal_monai_where_the_class_is_in_the_truth():
    from monai.metrics import compute_dice, compute_iou

    prediction, truth = every_pair()
    counts = confusion_counts(prediction, truth, NUM_CLASSES)
    one_hot = [
        torch.nn.functional.one_hot(mask, NUM_CLASSES).permute(0, 3, 1, 2).float() for mask in (prediction, truth)
    ]
    # For a class absent from the truth MONAI has one policy, whether or not it is predicted; the counts tell
    # these apart, so only classes in the truth can be compared.
    in_truth = (counts[..., TP] + counts[..., FN]) > 0
    for ours, theirs in ((dice, compute_dice), (iou, compute_iou)):
        expected = theirs(*one_hot, include_background=True)
        np.testing.assert_allclose(ours(counts.numpy())[in_truth], expected[in_truth].double(), atol=1e-6)
    assert int(in_truth.sum()) > 50


@pytest.mark.parametrize("label", [-1, 2])
@pytest.mark.parametrize("where", ["truth", "prediction"])
def test_label_out_of_range_is_refused(where, label):
    masks = {name: torch.zeros(1, 2, 2, dtype=torch.int64) for name in ("prediction", "truth")}
    masks[where][0, 1, 1] = label
    with pytest.raises(ValueError, match=r"1 pixels have a label outside \[0, 2\)"):
        confusion_counts(masks["prediction"], masks["truth"], 2)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 3\), \(1, 3, 2\)"):
        confusion_counts(torch.zeros(1, 2, 3).long(), torch.zeros(1, 3, 2).long(), 2)
