"""Probes against other implementations, and their place in the epochs table."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from raysweep.data.pack import open_pack
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.encoder import build_encoder
from raysweep.stages import probes
from raysweep.stages.frozen_classifiers import accuracy, knn_shares, label_logits, linear_scores, mean_auc, mean_dice
from raysweep.stages.probes import Probes
from raysweep.stages.runtime import prepare_runtime
from tests.pretraining import CONV, VIT
from tests.unit.data.packs import write_small_pack


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probes_of(path, size: int = 32) -> Probes:
    return Probes(open_pack(path), size, Normalisation(), prepare_runtime(0, "float32", 1))


def test_neighbours_vote_by_the_exponential_of_their_cosine():
    known, asked = torch.randn(30, 5, generator=generator()), torch.randn(4, 5, generator=generator(1))
    classes = torch.arange(30) % 3
    got = knn_shares(known, torch.nn.functional.one_hot(classes, 3).float(), asked)
    for row, query in zip(got.tolist(), asked.double(), strict=True):
        cosines = [float(query @ k / query.norm() / k.norm()) for k in known.double()]
        nearest = sorted(range(30), key=lambda i: -cosines[i])[:20]
        votes = [sum(math.exp(cosines[i] / 0.07) for i in nearest if classes[i] == k) for k in range(3)]
        assert row == pytest.approx([vote / sum(votes) for vote in votes], rel=1e-3, abs=1e-5)


def test_linear_scores_solve_the_penalised_logistic_regression():
    """At the solution every coefficient's gradient, written out, is 0."""
    x = torch.randn(60, 4, generator=generator()).double() * torch.tensor([1.0, 5.0, 0.2, 2.0])
    classes = (x[:, 0] + x[:, 1] / 5 > 0).long() + (x[:, 3] > 2).long()
    y = torch.nn.functional.one_hot(classes, 3).double()
    w = torch.rand(60, generator=generator(2)).double() + 0.1
    logits = linear_scores(x.float(), y.float(), x.float(), w.float()).double()
    w = w / w.sum()
    z = (x - w @ x) / (w @ (x - w @ x) ** 2).sqrt()
    coefficients = torch.linalg.lstsq(torch.cat((z, torch.ones(60, 1)), 1), logits).solution
    residual = w[:, None] * (logits.softmax(1) - y)
    assert float((z.T @ residual + 1e-2 * coefficients[:4]).abs().max()) < 1e-3
    assert float(residual.sum(0).abs().max()) < 1e-3
    assert float((logits.argmax(1) == classes).double().mean()) > 0.8


def test_a_feature_that_never_changes_does_no_harm():
    x = torch.cat((torch.randn(40, 2, generator=generator()), torch.ones(40, 1)), 1)
    classes = torch.nn.functional.one_hot((x[:, 0] > 0).long(), 2).float()
    assert accuracy(linear_scores(x, classes, x), classes) > 0.9


def test_labels_that_do_not_exclude_each_other_have_a_regression_each():
    x = torch.randn(80, 3, generator=generator())
    labels = (x[:, :2] > 0).float()
    assert mean_auc(label_logits(x, labels, x), labels) > 0.98


def test_area_under_the_curve_is_the_mann_whitney_statistic_with_ties():
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 6, (40, 3)).astype(float), rng.random((40, 3)) > 0.6
    truth[:, 2] = True  # a label that all have says nothing
    expected = np.mean(
        [
            mannwhitneyu(s[t], s[~t]).statistic / t.sum() / (~t).sum()
            for s, t in zip(scores.T[:2], truth.T[:2], strict=True)
        ]
    )
    assert mean_auc(torch.tensor(scores), torch.tensor(truth).float()) == pytest.approx(expected)


def test_dice_averages_the_foreground_classes_that_occur():
    truth, predicted = torch.tensor([0, 1, 1, 2, 0, 0]), torch.tensor([0, 1, 2, 2, 0, 1])
    assert mean_dice(predicted, truth, 4) == pytest.approx((2 * 1 / 4 + 2 * 1 / 3) / 2)
    assert accuracy(torch.eye(3), torch.eye(3)[[0, 1, 1]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("backbone", [CONV, VIT], ids=lambda b: b.encoder)
def test_probes_of_a_pack_with_masks_repeat_and_leave_everything_as_it_was(cardiac_pack, backbone):
    torch.manual_seed(0)
    encoder = build_encoder(backbone)
    state = {key: value.clone() for key, value in encoder.state_dict().items()}
    measured = probes_of(cardiac_pack)
    rng = torch.get_rng_state()
    first, second = measured.measure(encoder), measured.measure(encoder)
    assert first == second
    assert {"knn_dice", "linear_dice", "rank_me"} <= set(first)
    assert all(0 <= value <= 1 for name, value in first.items() if name != "rank_me")
    assert 1 <= first["rank_me"] <= encoder.num_features
    assert encoder.training
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in state.items())


class Oracle(torch.nn.Module):
    """An encoder that sees intensities alone, on a grid of one pixel a cell."""

    num_features = 2

    def feature_maps(self, x):
        return [torch.cat((x, x**2), 1)]


def _per_cell(maps):
    return maps.movedim(1, -1).flatten(0, 2)


def masks_scores(measured, encoder):
    return measured._masks({split: measured._read(encoder, split) for split in ("train", "val")})


def test_features_that_tell_classes_apart_score_high(cardiac_pack, monkeypatch):
    """Where intensity is made the class, intensity alone finds every class; shuffled, it finds little."""
    pack = open_pack(cardiac_pack)
    as_image = lambda _, rows: torch.stack([torch.from_numpy(pack.mask(int(r)).astype(np.float32))[None] for r in rows])  # noqa: E731
    monkeypatch.setattr(probes, "_MAX_GRID", 32)
    measured = probes_of(cardiac_pack)
    monkeypatch.setattr(
        probes,
        "scaled_slices",
        lambda p, rows: (
            list(as_image(p, rows[:1]))
            if len(rows) == 1
            else [torch.from_numpy(pack.mask(int(r)).astype(np.float32))[None] for r in rows]
        ),
    )
    monkeypatch.setattr(probes, "_describe_cells", lambda maps, cells: _per_cell(maps[0])[cells])
    high = masks_scores(measured, Oracle())
    noise = torch.rand(32, 2, 32, 32, generator=generator())
    monkeypatch.setattr(probes, "_describe_cells", lambda maps, cells: _per_cell(noise)[cells])
    low = masks_scores(measured, Oracle())
    assert high["knn_dice"] > 0.9 > 0.5 > low["knn_dice"]
    assert high["linear_dice"] > 0.8 > 0.5 > low["linear_dice"]


def test_a_pack_without_masks_and_labels_has_a_rank_alone(leaves_pack):
    measured = probes_of(leaves_pack)
    assert not measured.by_masks
    assert not measured.by_labels
    assert set(measured.measure(build_encoder(CONV))) <= {"rank_me"}


def test_labels_that_are_never_all_known_are_not_probed(tmp_path):
    path = tmp_path / "small.h5"
    write_small_pack(path)  # its second label is unknown throughout
    assert not probes_of(path).by_labels


def test_cells_take_the_class_of_most_of_their_pixels():
    labels = torch.tensor([[[0, 0, 1, 1], [0, 2, 1, 0], [2, 2, 1, 2], [2, 1, 0, 2]]])
    assert probes._most_frequent(labels, 3, 2, 2).tolist() == [[[0, 1], [2, 2]]]


def test_at_most_so_many_slices_are_taken_evenly():
    assert probes._evenly(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert probes._evenly(np.arange(3), 4).tolist() == [0, 1, 2]


def test_an_encoder_trains_on_after_a_probe(cardiac_pack):
    """Also one that keeps tensors of its last input, as windowed attention may."""
    options = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}
    encoder = build_encoder(Backbone(encoder="swin_tiny_patch4_window7_224", options=options))
    probes_of(cardiac_pack, 64).measure(encoder)
    encoder(torch.rand(2, 1, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters() if parameter.ndim > 1)


def test_a_cell_is_described_by_what_every_map_has_there():
    """As whole maps brought to the finest grid would describe it."""
    maps = [
        torch.randn(3, channels, side, side, generator=generator(side)) for channels, side in ((4, 8), (6, 4), (2, 1))
    ]
    scaled = [torch.nn.functional.normalize(m, dim=1) for m in maps]
    whole = torch.cat([torch.nn.functional.interpolate(m, size=(8, 8), mode="nearest") for m in scaled], 1)
    cells = torch.tensor([0, 7, 63, 64, 100, 191])
    torch.testing.assert_close(probes._describe_cells(maps, cells), _per_cell(whole)[cells])


def test_only_the_cells_that_a_probe_takes_are_kept(cardiac_pack, monkeypatch):
    """The same cells, in order, whatever the batches; so a large pack needs no more memory than its share of cells."""
    measured, encoder = probes_of(cardiac_pack), build_encoder(CONV).eval()
    with torch.no_grad():
        monkeypatch.setattr(probes, "MAX_CELLS", {"train": 10**6, "val": 10**6})
        whole = measured._read(encoder, "train")
        all_features, every = whole.described, whole.cells
        assert np.array_equal(every.numbers, np.arange(len(all_features)))
        monkeypatch.setattr(probes, "MAX_CELLS", {"train": 100, "val": 100})
        for batch in (64, 5):
            monkeypatch.setattr(probes, "_BATCH", batch)
            measured = probes_of(cardiac_pack)
            read = measured._read(encoder, "train")
            cells = read.cells
            assert len(cells.numbers) == 100
            torch.testing.assert_close(read.described, all_features[cells.numbers])
            assert torch.equal(cells.classes, every.classes[cells.numbers])


def test_rare_classes_give_as_many_cells_as_frequent_ones_and_weigh_as_the_roots_of_their_frequencies():
    classes = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)[torch.randperm(1000, generator=generator())]
    cells = probes._draw_cells(classes, 4, 130, balanced=True)
    assert torch.bincount(cells.classes).tolist() == [60, 60, 10]
    assert torch.equal(cells.classes, classes[cells.numbers])
    weights = [float(cells.weights[cells.classes == label].sum()) for label in range(3)]
    assert weights == pytest.approx([900**0.5, 90**0.5, 10**0.5])
    assert np.array_equal(cells.numbers, probes._draw_cells(classes, 4, 130, balanced=True).numbers)


def test_cells_to_answer_for_come_as_often_as_their_class_does():
    classes = torch.tensor([0] * 9000 + [1] * 1000)
    drawn = probes._draw_cells(classes, 2, 2000, balanced=False)
    assert float(drawn.classes.float().mean()) == pytest.approx(0.1, abs=0.02)


def test_held_out_slices_may_come_from_several_splits(cardiac_pack):
    pack = open_pack(cardiac_pack)
    runtime = prepare_runtime(0, "float32", 1)
    wide = Probes(pack, 32, Normalisation(), runtime, held_out=("val", "test"))
    rows = wide._rows("val", "masks")
    assert sorted(rows) == sorted([*pack.select(split="val"), *pack.select(split="test")])
    encoder = build_encoder(CONV).eval()
    with torch.no_grad():
        narrow_cells, wide_cells = (p._read(encoder, "val").cells for p in (probes_of(cardiac_pack), wide))
    assert len(wide_cells.numbers) == 2 * len(narrow_cells.numbers)


def test_masks_are_read_once_however_many_encoders_are_probed(cardiac_pack, monkeypatch):
    measured, calls = probes_of(cardiac_pack), []
    draw = probes._draw_cells
    monkeypatch.setattr(probes, "_draw_cells", lambda *given, **named: calls.append(1) or draw(*given, **named))
    for seed in (0, 1):
        torch.manual_seed(seed)
        measured.measure(build_encoder(CONV))
    assert len(calls) == 2  # for the train split and the val split


def test_every_slice_passes_through_the_encoder_once_for_all_probes(cardiac_pack, monkeypatch):
    """And those with masks or labels alone are told apart, whatever the batches."""
    pack = open_pack(cardiac_pack)
    measured = probes_of(cardiac_pack)
    passed = []
    run = measured._run
    monkeypatch.setattr(measured, "_run", lambda encoder, rows: passed.extend(rows) or run(encoder, rows))
    whole = measured.measure(encoder := build_encoder(CONV))
    assert {"knn_dice", "linear_accuracy", "rank_me"} <= set(whole)
    assert sorted(passed) == sorted([*pack.select(split="train"), *pack.select(split="val")])

    every = {split: measured._rows(split) for split in ("train", "val")}
    chosen = {"masks": lambda rows: rows[::2], "labels": lambda rows: rows[1::3], None: lambda rows: rows}
    monkeypatch.setattr(measured, "_rows", lambda split, kind=None: chosen[kind](every[split]))
    measured._drawn.clear()
    encoder.eval()
    with torch.no_grad():
        together = measured._read(encoder, "val")
        monkeypatch.setattr(probes, "_BATCH", 3)
        apart = measured._read(encoder, "val")
        alone = measured._run(encoder, every["val"][1::3])[-1].mean((2, 3))
    torch.testing.assert_close(together.labelled, alone)
    torch.testing.assert_close(together.described, apart.described)
    assert len(together.ranked) == len(every["val"])
    assert together.cells.numbers[-1] < len(every["val"][::2]) * 28**2
